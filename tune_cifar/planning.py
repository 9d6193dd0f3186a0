"""Plans a search from its request, for `--dry-run` and for the search itself alike: what it says is what it does."""

from __future__ import annotations

from collections.abc import Sequence

from tune_cifar.request import SearchRequest
from tune_cifar.runner.resources import NodeResources, TrialSlots, plan_slots
from tune_cifar.settings import SearchSettings
from tune_cifar.sweep.searcher import SearchPlan, plan_search
from tune_cifar.sweep.space import SearchSpace


def slots_for(settings: SearchSettings, nodes: Sequence[NodeResources], gpus_per_trial: float | None) -> TrialSlots:
    """How many trials run at once on `nodes` and what each has; `gpus_per_trial` None leaves that to the plan."""
    return plan_slots(
        nodes,
        cpus_per_trial=settings.cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        trials_at_once=settings.trials_at_once,
    )


def plan_for(request: SearchRequest, space: SearchSpace, slots: TrialSlots) -> SearchPlan:
    """How many trials there are and how their configs are chosen."""
    return plan_search(
        request.config,
        space,
        num_trials=request.settings.count,
        seed=request.settings.seed,
        trials_at_once=slots.trials_at_once,
        prior_trials=request.prior_trials,
    )
