# The stages of tests/stages/standin on the operator's Python: kilobytes, and a start in a tenth of a second.
ARG OPERATOR_IMAGE
FROM ${OPERATOR_IMAGE}
COPY sppo_trainer /opt/sppo/source/sppo_trainer
ENTRYPOINT []
