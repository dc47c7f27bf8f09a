// Package monitoring names the types of Prometheus Operator's resources, of which controller-gen makes their definitions.
package monitoring

import _ "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
