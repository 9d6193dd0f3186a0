"""Opens reports in a real browser and does what a reader does with them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains

from tests.report.browser import Reader, open_browser
from tests.report.searches import SWEEP, add_repeats, make_predictions, make_search, make_trials, publish
from tune_cifar.report.comparison import make_comparison
from tune_cifar.report.page import write_page
from tune_cifar.report.report import write_report
from tune_cifar.report.search_files import read_search

SCRIPT = "<script>window.wasRun = true</script><img src=x onerror='window.wasRun = true'>"
PLANTED = f'# {SCRIPT}\ndescription: "{SCRIPT}"\n{SWEEP}'


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a complete search of 24 trials and four repeats, two of them failed or diverged."""
    trials = make_trials()
    add_repeats(trials)
    folder = make_search(tmp_path_factory.mktemp("searches") / "resnets", trials)
    publish(folder)
    return write_report(folder)


def _shown(reader: Reader) -> list[str]:
    return reader.text_of("#trials tbody tr td:first-child")


def test_every_plot_is_drawn_and_the_console_stays_empty(reader: Reader, report: Path) -> None:
    reader.open(report)
    for label in ("over time", "val_accuracy", "train_loss"):
        reader.run(
            "[...document.querySelectorAll('.tabs button')].find((one) => one.textContent === arguments[0]).click()",
            label,
        )
    assert reader.run("return [...document.querySelectorAll('.plot')].every((plot) => plot._fullLayout)")
    assert reader.run("return document.querySelectorAll('.plot').length") == 9
    assert reader.text_of("#no-webgl") == []
    assert reader.complaints() == []


def test_a_curve_tells_its_trial_under_the_mouse(reader: Reader, report: Path) -> None:
    reader.open(report)
    reader.run("document.getElementById('curves-0').scrollIntoView({block: 'center'})")
    x, y, width, height, number, value = reader.run(
        """const plot = document.getElementById('curves-0');
        const {xaxis, yaxis} = plot._fullLayout;
        const line = plot.data.find((trace) => trace.name === 'stopped' && trace.mode === 'lines');
        const top = line.y.indexOf(Math.max(...line.y));
        const place = [xaxis.d2p(line.x[top]), yaxis.d2p(line.y[top]), xaxis._length, yaxis._length];
        return [...place, parseInt(line.customdata[top]), line.y[top]];"""
    )
    area = reader.find("#curves-0 .nsewdrag")
    offset = (round(x - width / 2), round(y - height / 2))
    ActionChains(reader.driver).move_to_element_with_offset(area, *offset).perform()
    reader.wait("return document.querySelector('#curves-0 .hoverlayer').textContent")
    told = reader.find("#curves-0 .hoverlayer").get_attribute("textContent")
    assert told.startswith(f"trial {number} (stopped)model ResNet")
    assert told.endswith(f"epoch 1: val_loss {value}")


def test_each_tick_of_a_logarithmic_axis_says_its_value(reader: Reader, tmp_path: Path) -> None:
    trials = make_trials()
    for trial in trials:
        for row in trial.epochs:
            row["val_loss"] = 40.0 / row["epoch"] ** 3
    reader.open(write_report(make_search(tmp_path / "wide", trials)))
    script = "const axis = document.getElementById('curves-0')._fullLayout.yaxis; return [axis.type, axis._vals]"
    kind, ticks = reader.run(script)
    assert kind == "log"
    labelled = [tick for tick in ticks if tick.get("text", "").strip()]
    assert len(labelled) > 2
    assert [float(tick["text"]) for tick in labelled] == pytest.approx([10 ** tick["x"] for tick in labelled], rel=0.01)


def test_ticks_do_not_lie_upon_one_another(reader: Reader, tmp_path: Path) -> None:
    trials = make_trials()
    for trial in trials:
        for row in trial.epochs:
            row["val_loss"] = 4.0 / trial.number
    classes = make_predictions([f"class number {number}" for number in range(60)])
    reader.open(write_report(make_search(tmp_path / "narrow", trials, predictions=classes)))
    assert reader.run("return document.getElementById('best-over-trials')._fullLayout.yaxis.type") == "log"
    for plot in ("best-over-trials", "confusion"):
        places = reader.run(
            """return [...document.querySelectorAll(`#${arguments[0]} .ytick text`)]
            .filter((text) => text.textContent.trim()).map((text) => text.getBoundingClientRect().top)""",
            plot,
        )
        assert len(places) > 2
        gaps = [upper - lower for lower, upper in itertools.pairwise(sorted(places))]
        assert min(gaps) > 11


@pytest.mark.parametrize("width", [1280, 390])
def test_long_names_are_not_cut_and_make_no_page_wider(reader: Reader, tmp_path: Path, width: int) -> None:
    models = ["resnext101_64x4d", "wide_resnet101_2", "resnet18"]
    group = ["a_group_with_a_rather_long_name", "and_another_group_in_it_with_a_long_name"]
    trials = make_trials()
    for trial in trials:
        trial.config["model"] = models[trial.number % 3]
        values = {"weight_decay": 1e-4 * trial.number, "label_smoothing": 0.01 * trial.number}
        trial.config[group[0]] = {group[1]: values}
    inner = "{parameters: {weight_decay: {min: 0, max: 0.1}, label_smoothing: {min: 0, max: 0.3}}}"
    more = f"  {group[0]}: {{parameters: {{{group[1]}: {inner}}}}}\n  augment:"
    sweep = SWEEP.replace("[ResNet18, ResNet34]", str(models)).replace("  augment:", more)
    reader.open(write_report(make_search(tmp_path / "names", trials, sweep=sweep)), width=width)
    assert reader.run("return document.documentElement.scrollWidth") <= width
    cut = """const plots = ['parallel', 'importance', 'correlation'].map((name) => document.getElementById(name));
    return plots.flatMap((plot) => [...plot.querySelectorAll('text')]).filter((text) => {
        const [inner, outer] = [text, text.closest('.plot')].map((one) => one.getBoundingClientRect());
        return inner.width > 2 && (inner.left < outer.left - 1 || inner.right > outer.right + 1);
    }).map((text) => text.textContent)"""
    assert reader.run(cut) == []
    titles = reader.run(
        """return [...document.querySelectorAll('#parallel .axis-title')].map((text) => {
        const place = text.getBoundingClientRect();
        return [place.left, place.right];})"""
    )
    assert len(titles) == 8
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(sorted(titles)))


def test_paper_is_white_and_shows_all_columns(reader: Reader, report: Path) -> None:
    reader.open(report, scheme="dark")
    reader.run(
        """window.printed = [];
        window.addEventListener('beforeprint', () => {
            const stroke = document.querySelector('#best-over-trials .lines .js-line');
            window.printed.push(getComputedStyle(stroke).stroke);
        });"""
    )
    reader.driver.execute_cdp_cmd("Page.printToPDF", {})
    assert reader.run("return window.printed") == ["rgb(31, 35, 40)"]
    reader.wait("return document.getElementById('best-over-trials').layout.font.color === '#e6edf3'")
    reader.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    overflows = reader.run("return getComputedStyle(document.getElementById('trials').parentElement).overflowX")
    page = reader.run("return getComputedStyle(document.body).color")
    reader.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert (overflows, page) == ("visible", "rgb(31, 35, 40)")


def test_no_two_columns_of_the_table_have_one_name(reader: Reader, tmp_path: Path) -> None:
    trials = make_trials()
    for trial in trials:
        trial.config["epochs"] = 2 + trial.number % 2
    text = "method: random\nmetric: {name: val_loss, goal: minimize}\nparameters: {epochs: {values: [2, 3]}}\n"
    reader.open(write_report(make_search(tmp_path / "epochs", trials, sweep=text)))
    headings = reader.run("return [...document.querySelectorAll('#trials th')].map((head) => head.textContent.trim())")
    assert "epochs" in headings
    assert len(set(headings)) == len(headings)


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_it_round(reader: Reader, report: Path) -> None:
    reader.open(report)
    assert _shown(reader) == [str(number) for number in range(1, 29)]
    cells = (
        "return [...document.querySelectorAll('#trials tbody tr')].map((row) => row.cells[arguments[0]].textContent)"
    )
    headings = [
        text.strip()
        for text in reader.run("return [...document.querySelectorAll('#trials th')].map((head) => head.textContent)")
    ]
    for heading in ("val_loss", "lr"):
        place = headings.index(heading)
        button = reader.find(f"#trials th:nth-child({place + 1}) button")
        button.click()
        values = [float(text) for text in reader.run(cells, place)]
        assert values == sorted(values)
        button.click()
        assert [float(text) for text in reader.run(cells, place)] == sorted(values, reverse=True)
    reader.find(f"#trials th:nth-child({headings.index('model') + 1}) button").click()
    models = reader.run(cells, headings.index("model"))
    assert models == sorted(models)
    assert reader.run("return document.querySelectorAll('#trials th[aria-sort]').length") == 1


def test_a_word_is_not_found_across_two_cells(reader: Reader, report: Path) -> None:
    reader.open(report)
    reader.find("#filter").send_keys("finishedResNet")
    assert _shown(reader) == []


def test_the_headings_stay_over_a_long_table(reader: Reader, tmp_path: Path) -> None:
    reader.open(write_report(make_search(tmp_path / "long", make_trials(120))))
    top, heading, height = reader.run(
        """const box = document.getElementById('trials').parentElement;
        box.scrollTop = 1000;
        const [outer, inner] = [box, document.querySelector('#trials th')].map((one) => one.getBoundingClientRect());
        return [outer.top, inner.top, outer.height];"""
    )
    assert heading == pytest.approx(top, abs=1)
    assert height < 900


def test_words_and_status_filter_the_table(reader: Reader, report: Path) -> None:
    reader.open(report)
    reader.find("#filter").send_keys("flip_crop resnet34")
    rows = reader.text_of("#trials tbody tr")
    assert 0 < len(rows) < 28
    assert all("flip_crop" in row and "ResNet34" in row for row in rows)
    assert reader.find("#shown").text == f"{len(rows)} of 28 shown"
    reader.find("#filter").clear()
    reader.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
    reader.find("#status option:nth-child(4)").click()
    assert _shown(reader) == ["10"]
    assert "diverged: val_loss is nan" in reader.find("#trials tbody tr[data-status=diverged]").text


def test_a_brush_on_an_axis_filters_the_table_also_after_a_change_of_colours(reader: Reader, report: Path) -> None:
    reader.open(report)
    reader.run("document.getElementById('parallel').scrollIntoView({block: 'center'})")
    axis = reader.driver.find_elements("css selector", "#parallel .axis-brush .background")[-1]
    height = axis.rect["height"]
    mouse = ActionChains(reader.driver).move_to_element_with_offset(axis, 0, round(0.2 * height)).click_and_hold()
    for _ in range(3):
        mouse = mouse.move_by_offset(0, round(0.1 * height)).pause(0.05)
    mouse.release().perform()
    reader.wait("return document.getElementById('shown').textContent.includes('brushed')")
    low, high = reader.run("return document.getElementById('parallel').data[0].dimensions.at(-1).constraintrange")
    trials = json.loads((report.parent / "trials.json").read_text())["trials"]
    best = {
        trial["number"]: min(epoch["val_loss"] for epoch in trial["epochs"])
        for trial in trials
        if trial["status"] in ("finished", "stopped") and trial["repeat_of"] is None
    }
    wanted = [str(number) for number, value in best.items() if low <= value <= high]
    assert 1 < len(wanted) < len(best)
    assert _shown(reader) == wanted
    reader.prefer("dark")
    reader.wait("return document.getElementById('parallel').layout.font.color === '#e6edf3'")
    assert _shown(reader) == wanted
    kept = reader.run("return document.getElementById('parallel').data[0].dimensions.at(-1).constraintrange")
    assert kept == pytest.approx([low, high])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_what_is_behind_it(reader: Reader, report: Path, scheme: str) -> None:
    reader.open(report, scheme="dark" if scheme == "dark" else "light")
    faint = reader.run(
        """const channels = (text) => text.match(/[0-9.]+/g).map(Number);
        const luminance = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (element) => {
            for (let one = element; one; one = one.parentElement) {
                const colour = channels(getComputedStyle(one).backgroundColor);
                if (colour.length === 3) return colour;
            }
        };
        const contrast = (text, element) => {
            const [low, high] = [luminance(channels(text)), luminance(behind(element))].sort((a, b) => a - b);
            return (high + 0.05) / (low + 0.05);
        };
        const texts = [...document.querySelectorAll('h1, h2, h3, p, li, dt, dd, th, td, span, button, code, svg text')]
            .filter((one) => one.textContent.trim() && !one.closest('[hidden], .axis-extent'))
            .map((one) => [one.textContent, getComputedStyle(one)[one.closest('svg') ? 'fill' : 'color'], one]);
        const field = document.getElementById('filter');
        texts.push(['placeholder', getComputedStyle(field, '::placeholder').color, field]);
        return texts.filter(([, colour, one]) => contrast(colour, one) < 4.5).map((one) => one.slice(0, 2));"""
    )
    assert faint == []


@pytest.mark.parametrize(("scheme", "page", "line"), [("light", [245, 247, 250], 0), ("dark", [13, 17, 23], 255)])
def test_page_and_plots_are_light_or_dark_with_the_system(
    reader: Reader, report: Path, scheme: str, page: list[int], line: int
) -> None:
    reader.open(report, scheme="dark" if scheme == "dark" else "light")
    colours = reader.run(
        """const numbers = (text) => text.match(/[0-9]+/g).map(Number).slice(0, 3);
        const stroke = document.querySelector('#best-over-trials .lines .js-line');
        return [numbers(getComputedStyle(document.body).backgroundColor), numbers(getComputedStyle(stroke).stroke)];"""
    )
    assert colours[0] == page
    assert all(abs(part - line) < 60 for part in colours[1])


@pytest.mark.parametrize("width", [390, 320])
def test_a_narrow_page_is_not_wider_than_the_screen(reader: Reader, report: Path, width: int) -> None:
    reader.open(report, width=width)
    assert reader.run("return document.documentElement.scrollWidth") == width
    too_wide = """return [...document.querySelectorAll('section, .card, .plot, h1, p')]
        .filter((one) => !one.closest('.scroll') && one.getBoundingClientRect().right > innerWidth + 0.5)
        .map((one) => one.outerHTML.slice(0, 80))"""
    assert reader.run(too_wide) == []
    assert reader.complaints() == []


def test_planted_scripts_do_nothing(reader: Reader, tmp_path: Path) -> None:
    trials = make_trials()
    for trial in trials:
        trial.message = SCRIPT
    classes = ("<script>x()</script>", "<img onerror='x()'>", "a<b>c", "plain", "</script>", "</style>", "&amp;")
    predictions = make_predictions(classes)
    folder = make_search(tmp_path / "planted", trials, sweep=PLANTED, predictions=predictions)
    reader.open(write_report(folder))
    assert reader.run("return window.wasRun") is None
    assert reader.run("return document.querySelectorAll('script').length") == 4
    ticks = reader.run("return [...document.querySelectorAll('#confusion .ytick text')].map((one) => one.textContent)")
    assert sorted(ticks) == sorted(classes)
    assert reader.complaints() == []


def test_the_comparison_is_drawn(reader: Reader, report: Path, tmp_path: Path) -> None:
    other = make_search(tmp_path / "other", make_trials(9, seed=4), state="running")
    path = tmp_path / "comparison.html"
    write_page(path, make_comparison([read_search(report.parent), read_search(other)], tmp_path))
    reader.open(path, width=390)
    assert reader.run("return document.documentElement.scrollWidth") == 390
    assert reader.run("return document.getElementById('best-over-trials').data.map((trace) => trace.name)") == [
        "resnets",
        "other",
    ]
    # A search with one value has no line, but a mark.
    alone = make_search(tmp_path / "alone", make_trials(1, seed=5))
    write_page(path, make_comparison([read_search(report.parent), read_search(alone)], tmp_path))
    reader.open(path)
    marks = """return [...document.querySelectorAll('#best-over-trials .points path')]
        .map((one) => getComputedStyle(one).fill)"""
    assert "rgb(188, 76, 0)" in reader.run(marks)
    assert reader.run("return document.getElementById('curves-val_loss')._fullLayout.xaxis.dtick") == 1
    assert reader.complaints() == []
