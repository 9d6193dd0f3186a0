"""The parts of one search's report that are drawn: how it went, what mattered, and what the model takes for what."""

from __future__ import annotations

import html

from tune_cifar.report.confusion import confusion_matrix
from tune_cifar.report.figures import best_over_time, best_over_trials, learning_curves
from tune_cifar.report.importance import (
    MIN_TRIALS_CORRELATION,
    MIN_TRIALS_FOREST,
    Importances,
    importances,
    scored_trials,
)
from tune_cifar.report.lessons import LEAST_EXPLAINED
from tune_cifar.report.mistakes import Mistakes
from tune_cifar.report.page import Page, section
from tune_cifar.report.parameter_figures import (
    MAX_BARS,
    MAX_LINES,
    correlation_bars,
    importance_bars,
    least_width,
    parallel_coordinates,
)
from tune_cifar.report.search_files import SearchFiles
from tune_cifar.report.words import count
from tune_cifar.results import ENDED
from tune_cifar.sweep.schema import Metric


def progress(search: SearchFiles, page: Page) -> str:
    """Best so far, over trials and over time, and the learning curves."""
    trials, metric, names = search.trials, search.metric, search.varied_names
    if not any(trial.best_value(metric) is not None for trial in trials):
        return ""
    best_plots = {
        "over trials": ("best-over-trials", best_over_trials(search.own_trials, metric, names)),
        "over time": ("best-over-time", best_over_time(search.own_trials, metric)),
    }
    scores = dict.fromkeys([metric.name, "val_loss", "val_accuracy", "train_loss"])
    curves = {name: learning_curves(trials, name, search.best, names) for name in scores}
    shown = next(iter(curves.values()))[1]
    note = "A line a trial; its last epoch has the mark of what became of it."
    if shown < len(trials):
        note += f" Of {len(trials):,} trials {shown:,} are drawn: the best one and the first."
    unmarked = sum(trial.status in ENDED and trial.best_value(metric) is None for trial in trials)
    if unmarked:
        note += f" {count(unmarked, 'trial')} ended before the first {metric.name} that could be drawn."
    plots = {name: (f"curves-{place}", made) for place, (name, (made, _)) in enumerate(curves.items())}
    timed = "Time counts while at least one trial is trained."
    return section("Best so far", page.tabbed_plots(best_plots), note=timed) + section(
        "Learning curves", page.tabbed_plots(plots), note=note
    )


def parameters(search: SearchFiles, page: Page) -> str:
    """Parallel coordinates, importance and correlation."""
    found = importances(search.config, search.own_trials)
    bars = _importance(found, search.metric, page) + _correlation(found, search.metric, page)
    return f'{_coordinates(search, page)}<div class="two">{bars}</div>'


def _coordinates(search: SearchFiles, page: Page) -> str:
    made = parallel_coordinates(search.config, search.own_trials)
    if made is None:
        return ""
    note = "A line a trial, the bluer the better. Drag along an axis to choose trials, here and in the table below."
    scored = len(scored_trials(search.own_trials, search.metric))
    left_out = len(search.own_trials) - scored
    if scored > MAX_LINES:
        note += f" The best {MAX_LINES:,} of {scored:,} are drawn."
    if left_out:
        note += f" Left out: {count(left_out, 'trial')} without a result that counts."
    webgl = '<p class="note" id="no-webgl" hidden>This browser has no WebGL, which this plot is drawn with.</p>'
    plot = page.plot("parallel", made, least_width=least_width(made), webgl=True)
    return section("Parallel coordinates", webgl, plot, note=note)


def _importance(found: Importances, metric: Metric, page: Page) -> str:
    if not found.shares:
        why = f"It takes {MIN_TRIALS_FOREST} trials with different results and a parameter that varies"
        return section("Importance", note=f"{why}; there are {count(found.num_trials, 'trial')} with a result.")
    note = (
        f"Impurity importance in a random forest that predicts the rank of {metric.name} from the parameters of "
        f"{found.num_trials:,} trials, the values of a category added up. "
    )
    if found.unseen_r2 < LEAST_EXPLAINED:
        note += "It does not predict trials that it has not seen, so these bars say little"
    else:
        note += "It explains part of what trials differ by that it has not seen"
    bars = page.plot("importance", importance_bars(found))
    return section("Importance", bars, note=f"{note} (out-of-bag R² {found.unseen_r2:.2f}).")


def _correlation(found: Importances, metric: Metric, page: Page) -> str:
    if not found.correlations:
        why = f"It takes {MIN_TRIALS_CORRELATION} trials with different results and a parameter that varies."
        return section("Correlation", note=why)
    worth = "higher" if metric.goal == "maximize" else "lower"
    note = (
        f"Spearman's, with {metric.name}, of {found.num_trials:,} trials. Blue: more of it goes with a better "
        f"({worth}) value; orange: with a worse one. It sees each parameter alone, and only trends."
    )
    if len(found.correlations) > MAX_BARS:
        note += f" The strongest {MAX_BARS} of {len(found.correlations)} are drawn."
    return section("Correlation", page.plot("correlation", correlation_bars(found, metric)), note=note)


def mistakes_on_test_images(mistakes: Mistakes, page: Page) -> str:
    """What the best model takes for what on the test images, and the worst mistakes as pictures."""
    wrong, total = mistakes.num_wrong, mistakes.num_images
    note = f"The best model is wrong on {wrong:,} of {total:,} test images ({wrong / total:.1%})."
    matrix = section("Confusion matrix", page.plot("confusion", confusion_matrix(mistakes)), note=note)
    if not mistakes.worst:
        return matrix
    names = mistakes.class_names
    pictures = []
    for mistake in mistakes.worst:
        label, predicted = html.escape(names[mistake.label]), html.escape(names[mistake.predicted])
        pictures.append(
            f'<li title="test image {mistake.row}"><img alt="{label} taken for {predicted}" '
            f'src="data:image/png;base64,{html.escape(mistake.png_base64)}">'
            f'<span class="wrong">{predicted} ({mistake.predicted_probability:.0%})</span><br>'
            f'<span class="true">is {label} ({mistake.label_probability:.1%})</span></li>'
        )
    grid = f'<ul class="mistakes">{"".join(pictures)}</ul>'
    told = "The mistakes with the least probability of the true class: what the model says, and what the image is."
    return f'<div class="two">{matrix}{section("Worst mistakes", grid, note=told)}</div>'
