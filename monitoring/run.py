"""The dashboard of one run: whether its policy gets better, how training goes, and where the time is."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Row

from monitoring.colours import GREEN, PHASES, RED, STATE_COLOURS
from monitoring.expressions import STATES, current, newest_win_rate, seen, stage_states
from monitoring.panels import (
    Drawn,
    at_once,
    by_iteration,
    coloured,
    columns,
    gauges,
    lines,
    matrix,
    number,
    over_time,
    rows,
    timeline,
    unit,
    word,
)

UID = "sppo-run"
TITLE = "SPPO / Run"
DESCRIPTION = (
    "One SPPORun: its win rate, training, stages and failures. "
    "Curves by iteration have what was seen within the time range."
)
RUN = 'namespace="$namespace",run="$run"'
FIRING = f'ALERTS{{alertname=~"SPPO.+",alertstate="firing",{RUN}}}'


def contents() -> list[Drawn | Row]:
    return [
        *_headline(),
        *_now(),
        Row("Does the policy get better?"),
        *_win_rates(),
        Row("Training"),
        *_training(),
        Row("Responses"),
        *_responses(),
        Row("Stages"),
        *_stages(),
        Row("Cost and failures"),
        *_costs(),
    ]


def _headline() -> list[Drawn]:
    created = current("sppo_run_created_timestamp_seconds", RUN)
    ended = current("sppo_run_finish_timestamp_seconds", RUN)
    return [
        word(
            "Phase",
            "What the run is doing.",
            rows(current("sppo_run_phase", RUN, "phase")),
            label="phase",
            colours=PHASES,
        ),
        number(
            "Iteration",
            "The newest iteration that has begun, and how many are planned.",
            at_once(current("sppo_run_iteration", RUN), "begun"),
            at_once(current("sppo_run_iterations", RUN), "planned"),
        ),
        number(
            "Newest win rate against the base",
            "Share of held-out comparisons that the newest evaluated policy wins, with the ends of its 95 % interval.",
            at_once(newest_win_rate("sppo_run_win_rate_low", RUN), "low"),
            at_once(newest_win_rate("sppo_run_win_rate", RUN), "mean"),
            at_once(newest_win_rate("sppo_run_win_rate_high", RUN), "high"),
            size=(7, 4),
            steps=((None, RED), (0.5, GREEN)),
            decimals=2,
            no_value="not measured yet",
        ),
        number(
            "Best iteration",
            "The iteration whose policy has the highest win rate against the base: the policy to take.",
            at_once(current("sppo_run_best_iteration", RUN)),
            size=(3, 4),
            no_value="none yet",
        ),
        number(
            "Time since it was created",
            "Until now, or until the run succeeded or failed.",
            at_once(f"({ended} or vector(time())) - scalar({created})"),
            size=(3, 4),
            unit="s",
            decimals=1,
        ),
        number(
            "GPU-hours",
            "GPUs that the run's pods requested, times the time for which they could run. A run on CPUs has none.",
            at_once(f"sum(max by (stage) (sppo_run_gpu_seconds_total{{{RUN}}})) / 3600"),
            size=(3, 4),
            decimals=2,
            no_value="none",
        ),
    ]


def _now() -> list[Drawn]:
    return [
        columns(
            "Conditions",
            "The run's conditions as they are now. Progressing and Degraded say in `kubectl sppo describe` what to do.",
            {"_": rows(current("sppo_run_condition", RUN, "condition", "status", "reason"))},
            size=(12, 6),
            labels=["condition", "status", "reason"],
            sort_by="condition",
        ),
        gauges(
            "Progress of what runs",
            "Share of the running stages that is done, as their pods report it.",
            at_once(current("sppo_run_stage_progress_ratio", RUN, "iteration", "stage"), "{{stage}} {{iteration}}"),
            size=(6, 6),
            unit="percentunit",
            high=1,
            no_value="no stage runs",
        ),
        gauges(
            "Estimated time left",
            "Until the running stages are done, as their pods estimate it.",
            at_once(current("sppo_run_stage_remaining_seconds", RUN, "iteration", "stage"), "{{stage}} {{iteration}}"),
            size=(6, 6),
            unit="s",
            no_value="no stage runs",
        ),
    ]


def _win_rates() -> list[Drawn]:
    panels = []
    for against, title in (
        ("base", "Win rate against the base"),
        ("previous", "Win rate against the iteration before"),
    ):
        training, second = (f'{RUN},against="{against}",oracle="{oracle}"' for oracle in ("training", "second"))
        panels.append(
            by_iteration(
                title,
                "Held-out comparisons won, with the 95 % interval, by the preference that the run learns. The second "
                "opinion (spec.evaluation.preference) is never trained on: where the two part, the policy exploits the "
                "first. Above the dashed line the policy is the better one.",
                {
                    "win rate": seen("sppo_run_win_rate", training, "iteration"),
                    "low": seen("sppo_run_win_rate_low", training, "iteration"),
                    "high": seen("sppo_run_win_rate_high", training, "iteration"),
                    "second opinion": seen("sppo_run_win_rate", second, "iteration"),
                },
                size=(12, 9),
                unit="percentunit",
                bands={"win rate": ("low", "high")},
                line_at=0.5,
            )
        )
    return panels


def _training() -> list[Drawn]:
    def figure(name: str) -> str:
        return f'max by (iteration) (sppo_run_stage_figure{{{RUN},stage="train",figure="{name}"}})'

    by = ("iteration", "stage")
    speed = current("sppo_run_stage_tokens_per_second", RUN, *by)
    running = current("sppo_run_stage_state", f'{RUN},state="Running"', *by)
    return [
        lines(
            "Loss / eta² while it trains",
            "The loss of the newest optimizer step that the running training reported, divided by eta² so that runs of "
            "different beta compare.",
            over_time(figure("lossOverEta2"), "iteration {{iteration}}"),
        ),
        lines(
            "Norm of the gradient while it trains",
            "Before it is clipped to spec.training.maxGradNorm.",
            over_time(figure("gradNorm"), "iteration {{iteration}}"),
        ),
        lines(
            "Tokens per second",
            "Tokens that a running stage samples or trains on, as it reports them.",
            over_time(f"{speed} and {running}", "{{stage}} {{iteration}}"),
        ),
        by_iteration(
            "Loss / eta² by iteration",
            "Mean over the training of an iteration.",
            {"loss / eta²": seen("sppo_run_loss_over_eta2", RUN, "iteration")},
        ),
        by_iteration(
            "Log-ratios by iteration",
            "How much more likely training made the best and the worst responses, in nats. Both below zero and "
            "falling: training only lowers likelihoods, and the run turns Degraded.",
            {role: seen("sppo_run_log_ratio_nats", f'{RUN},role="{role}"', "iteration") for role in ("best", "worst")},
            line_at=0,
        ),
        by_iteration(
            "KL from the base by iteration",
            "Per response, in nats: how far the policy has moved.",
            {"KL": seen("sppo_run_kl_nats", RUN, "iteration")},
        ),
    ]


def _responses() -> list[Drawn]:
    def of(metric: str, stage: str) -> str:
        return seen(metric, f'{RUN},stage="{stage}"', "iteration")

    return [
        by_iteration(
            "Length of the responses",
            "Mean tokens per response. Length that grows with the win rate may be all that the policy has learnt.",
            {
                "training prompts": of("sppo_run_response_tokens", "generate"),
                "held out": of("sppo_run_response_tokens", "evaluate"),
            },
        ),
        by_iteration(
            "Responses that pass",
            "Share of the responses that meets all rules of a Verifier.",
            {"training prompts": of("sppo_run_pass_ratio", "score"), "held out": of("sppo_run_pass_ratio", "evaluate")},
            unit="percentunit",
        ),
        by_iteration(
            "Responses that were cut",
            "Share of the sampled responses that reached spec.generation.maxTokens. A large one: raise maxTokens in a "
            "new run.",
            {"training prompts": of("sppo_run_cut_ratio", "generate")},
            unit="percentunit",
        ),
    ]


def _stages() -> list[Drawn]:
    by = ("iteration", "stage")
    return [
        timeline(
            "What ran when",
            "The state of every stage over time. Stages that wait for others are left out.",
            over_time(stage_states(RUN), "{{iteration}} {{stage}}"),
            states={number: (state, STATE_COLOURS[state]) for state, number in STATES.items()},
            size=(16, 12),
        ),
        matrix(
            "Time at work by iteration",
            "Time for which the attempts of each stage worked. Evaluation may run beside the next iteration.",
            rows(seen("sppo_run_stage_duration_seconds", RUN, *by)),
            row="iteration",
            column="stage",
            size=(8, 12),
            unit="s",
        ),
        columns(
            "Stages",
            "Every stage of iteration 0 and of the newest four, with its attempts and what it took.",
            {
                "_": rows(current("sppo_run_stage_state", RUN, *by, "state")),
                "attempts": rows(current("sppo_run_stage_attempts", RUN, *by)),
                "charged failures": rows(current("sppo_run_stage_charged_failures", RUN, *by)),
                "time at work": rows(current("sppo_run_stage_duration_seconds", RUN, *by)),
                "tokens per second": rows(current("sppo_run_stage_tokens_per_second", RUN, *by)),
            },
            looks={"time at work": unit("s"), "state": coloured(STATE_COLOURS)},
            labels=["iteration", "stage", "state"],
            sort_by="-iteration",
        ),
    ]


def _costs() -> list[Drawn]:
    return [
        gauges(
            "GPU-seconds by stage",
            "GPUs requested times seconds for which the pods could run, over the whole run.",
            at_once(current("sppo_run_gpu_seconds_total", RUN, "stage"), "{{stage}}"),
            unit="s",
            no_value="no GPUs requested",
        ),
        gauges(
            "Failures by cause, so far",
            "Attempts that ended badly: the user's fault is never retried, application failures are charged to "
            "spec.retries.limit, disruptions and evictions are retried for as long as it takes.",
            at_once(current("sppo_run_failures_total", RUN, "cause"), "{{cause}}"),
            unit="none",
            no_value="the run is gone",
        ),
        lines(
            "When attempts failed",
            "Attempts that ended badly so far, over time.",
            over_time(current("sppo_run_failures_total", RUN, "cause"), "{{cause}}"),
            unit="none",
            stacked=True,
        ),
    ]
