"""The report in a real browser: what a run brings stays text, and keyboard and phone reach all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from calibadv.report import html
from calibadv.report.write import write_report
from tests.integration.browser import a_browser
from tests.report.made_up import HOSTILE, disputed_group, history, prediction, write_run

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run that collapsed, with an alarm, a fault and three groups."""
    rows = history(24)
    for row in rows[1:16]:
        row["rollout/high_ppl_ratio"] = 0.05
    for row in rows[16:]:
        row |= {"rollout/high_ppl_ratio": 0.5, "reward/f1": 0.05}
    rows[5] |= {"rollout/infra_failed_count": 3, "time/step_s": 30}
    groups = {0: [disputed_group("test/0")], 1: [disputed_group("test/1"), disputed_group("test/2")]}
    first, answers = [prediction("q", 0.0), prediction("r", 0.5)], [prediction("q", 1.0), prediction("r", 0.5)]
    folder = tmp_path_factory.mktemp("report")
    run = write_run(folder / "mine", rows, groups=groups, first=first, answers=answers, run__steps=24)
    return write_report([run], folder / "report.html")


@pytest.fixture(scope="module")
def browser(report: Path) -> Iterator[Browser]:  # the report first: Playwright's event loop lets no other one begin
    assert report.is_file()
    with a_browser() as found:
        yield found


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1280, "height": 900}, offline=True) as context:
        opened = context.new_page()
        said: list[str] = []
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.goto(report.as_uri())
        opened.wait_for_selector("html[data-ready]")
        yield opened
        assert said == []  # the policy and the scripts have nothing to complain of


def test_what_a_run_brings_is_shown_as_text_and_never_runs(page: Page) -> None:
    expect(page.locator(".talk h3")).to_have_text(HOSTILE)
    page.get_by_role("button", name="2: 0.00").click()
    expect(page.locator(".query").first).to_contain_text("<img src=x onerror=window.stolen=1>")
    page.locator(".doc summary").first.click()
    expect(page.locator(".doc .text").first).to_contain_text("</script><script>window.stolen = 1</script>")
    assert page.evaluate("window.stolen") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 3


def test_a_script_that_would_get_into_the_page_does_not_run(browser: Browser, report: Path) -> None:
    """The policy holds even where the scripts would one day make markup of a text."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready]")
        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.stolen = 1\">')")
        page.wait_for_function("document.querySelector('img').complete")
        assert page.evaluate("window.stolen") is None


def test_the_head_has_the_table_with_intervals_collapse_and_faults(page: Page) -> None:
    summary = page.locator("#summary")
    expect(summary).to_contain_text("0.250 (0.000 to 0.500)")  # before
    expect(summary).to_contain_text("+0.500 (0.000 to +1.000)")  # the change, paired
    expect(page.locator("#curves svg text.warn", has_text="collapse, step 16")).to_have_count(1)
    expect(page.locator("#curves svg .alarm")).to_have_count(1)
    expect(page.locator("#faults")).to_contain_text("searches failed for good")
    expect(page.locator("#configuration")).to_contain_text("run.steps")


def test_a_duration_is_rounded_before_it_is_cut(page: Page) -> None:
    script = (Path(html.__file__).parent / "page" / "dom.js").read_text("utf-8")  # in the page it is a module's own
    said = page.evaluate(f"(() => {{ {script}\n return [59.7, 119.7, 5399.8, 7199].map(duration); }})()")
    assert said == ["60 s", "2 min 0 s", "1 h 30 min", "2 h 0 min"]


def test_a_tile_has_the_paired_change_and_none_of_other_questions(browser: Browser, tmp_path: Path) -> None:
    first = [prediction("q", 0.5), prediction("r", 1.0)]  # the newest evaluation asks q alone
    with browser.new_context() as context:
        page = context.new_page()
        for name, before, said in (
            ("paired", first, ["0.750", "+0.250 since before"]),
            ("unpaired", [], ["0.750", ""]),
        ):
            run = write_run(tmp_path / name, history(6), first=before, answers=[prediction("q", 0.75)])
            page.goto(write_report([run], tmp_path / f"{name}.html").as_uri())
            page.wait_for_selector("html[data-ready]")
            tile = page.locator(".tile", has_text="F1, held out")
            assert [text.strip() for text in tile.locator(".value, .note").all_inner_texts()] == said


def test_filters_leave_what_they_name(page: Page) -> None:
    count, items = page.locator("#rollouts [role=status]"), page.locator("#rollouts .list .item")
    expect(count).to_have_text("6 of 6 rollouts")
    page.get_by_label("blamed by", exact=True).select_option("grpo")
    expect(count).to_have_text("3 of 6 rollouts")
    page.get_by_label("not by", exact=True).select_option("calibadv")
    expect(count).to_have_text("0 of 6 rollouts")  # CalibAdv softens the first search and blames the second
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Outcome", exact=True).select_option("above")
    expect(items).to_have_count(3)
    page.get_by_label("Step", exact=True).select_option("0")
    expect(items).to_have_count(1)
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Text", exact=True).fill("onerror nobody")
    expect(page.locator(".talk")).to_have_text("No rollout passes these filters.")
    page.get_by_label("Text", exact=True).fill("bob")
    expect(items).to_have_count(3)
    page.get_by_label("Reward from").fill("0.5")
    expect(items).to_have_count(0)


def test_credit_tells_its_arithmetic_without_colour(page: Page) -> None:
    page.get_by_role("button", name="2: 0.00").click()
    bar = page.locator(".turn").first.locator(".credit", has=page.locator(".method", has_text=re.compile("^grpo$")))
    summary = bar.locator("summary")
    expect(summary).to_have_attribute("aria-label", "grpo: −0.71, blame")
    expect(summary).to_have_attribute(
        "title", "−0.5 [reward - mean: 0.00 - 0.50] × 1.41 [1 / deviation: of 2: 1.00 0.00] = −0.707"
    )
    expect(bar.locator(".bar i.neg")).to_have_count(1)
    assert "repeating-linear-gradient" in bar.locator(".bar i").evaluate("bar => getComputedStyle(bar).backgroundImage")
    summary.click()
    expect(bar.locator(".why")).to_contain_text("reward - mean")
    expect(bar.locator(".why")).to_contain_text("0.00 - 0.50")
    expect(page.locator(".doc .tag", has_text="silver").first).to_be_visible()
    expect(page.locator(".doc .tag", has_text="gold").first).to_be_visible()
    page.get_by_role("button", name="ppo", exact=True).click()
    expect(page.locator(".turn").first.locator(".credit")).to_have_count(5)


def test_rollouts_and_curves_are_walked_by_keyboard(page: Page) -> None:
    current = page.locator("#rollouts .item[aria-current=true] .meta")
    page.locator("#rollouts .item").first.click()
    expect(current).to_contain_text("step 0rollout 1")
    page.keyboard.press("ArrowDown")
    expect(current).to_contain_text("step 0rollout 2")
    page.keyboard.press("j")
    expect(current).to_contain_text("step 1rollout 1")
    page.locator("#curves svg[role=img]").first.focus()
    page.keyboard.press("End")
    expect(page.locator("#said")).to_contain_text("step 24: ")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#said")).to_contain_text("step 23: ")
    assert "Arrow keys read it step by step" in (
        page.locator("#curves svg[role=img]").first.get_attribute("aria-label") or ""
    )


def test_a_link_leads_to_its_rollout_and_a_wrong_one_to_no_harm(page: Page, report: Path) -> None:
    page.locator("#rollouts .item").nth(3).click()
    link = page.locator(".talk").get_by_role("link", name="link to this rollout")
    assert link.get_attribute("href") == "#rollout=1.1"
    page.goto("about:blank")
    page.goto(f"{report.as_uri()}#rollout=1.1")
    expect(page.locator("#rollouts .item[aria-current=true] .meta")).to_contain_text("step 1rollout 2")
    expect(page.locator(".talk")).to_contain_text("calibadv explain mine --step 1 --question test/1")
    page.goto("about:blank")
    page.goto(f"{report.as_uri()}#rollout=99.1")
    expect(page.locator("#rollouts .item[aria-current=true]")).to_have_count(1)


def test_a_kind_of_dispute_opens_its_rollouts(page: Page) -> None:
    page.locator("#methods").get_by_role("button", name="found silver documents, in a rollout that failed").click()
    expect(page.locator("#rollouts [role=status]")).to_have_text("3 of 6 rollouts")
    expect(page.locator(".turn.match")).to_have_count(1)


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_the_page_fits_from_a_phone_to_a_desktop(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    expect(page.locator("#curves svg").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_and_light_follow_the_system_and_the_button(browser: Browser, report: Path) -> None:
    with browser.new_context(color_scheme="dark") as context:
        page = context.new_page()
        page.goto(report.as_uri())
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        page.get_by_label("Dark or light").click()
        expect(page.locator("html")).to_have_attribute("data-theme", "light")


def test_every_control_and_picture_has_a_name(page: Page) -> None:
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, svg[role=img], [role=region], [role=group], a")]
        .filter((one) => !(one.getAttribute("aria-label") || one.textContent.trim() || one.labels?.length))
        .map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert nameless == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_that_keeps_anybody_out(browser: Browser, report: Path, scheme: str) -> None:
    with browser.new_context(color_scheme=scheme, reduced_motion="reduce") as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready]")
        found = Axe().run(page)
        assert [(each["id"], each["nodes"][0]["html"][:90]) for each in found.response["violations"]] == []


def test_a_run_that_has_next_to_nothing_has_a_page(browser: Browser, tmp_path: Path) -> None:
    run = write_run(tmp_path / "bare", [{"step": 1, "reward/mean": 0.5}])
    with browser.new_context() as context:
        page, said = context.new_page(), []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(write_report([run], tmp_path / "report.html").as_uri())
        page.wait_for_selector("html[data-ready]")
        expect(page.locator("#curves .chart")).to_have_count(1)
        expect(page.locator("#summary")).to_contain_text("not finished")
        assert said == []


def test_several_runs_stand_beside_each_other(browser: Browser, tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"{name}-{seed}", history(6, eval__f1=f1), method__name=name, run__seed=seed)
        for name, seed, f1 in (("grpo", 0, 0.4), ("grpo", 1, 0.6), ("calibadv", 0, 0.8))
    ]
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(write_report(runs, tmp_path / "report.html").as_uri())
        page.wait_for_selector("html[data-ready]")
        expect(page.locator("#runs table").first).to_contain_text("0.500 ± 0.141")
        expect(page.locator("#runs table").first).to_contain_text("2 (2 not finished)")
        expect(page.locator("#compared .band").first).to_be_attached()
        assert "grpo: 6.0 k tokens, F1 0.500" in (page.locator("#runs svg[role=img]").get_attribute("aria-label") or "")
        expect(page.locator("#summary h1")).to_have_text("grpo-0")
        page.get_by_role("button", name="grpo-1").click()
        expect(page.locator("#summary h1")).to_have_text("grpo-1")
        page.get_by_label("One run").select_option(label="calibadv-0")
        expect(page.locator("#summary h1")).to_have_text("calibadv-0")
        expect(page.locator("#rollouts")).to_contain_text("The run has stored no groups")
