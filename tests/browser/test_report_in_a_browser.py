"""The report as a person opens it: it fetches and runs nothing, fits every window, and can be read by everybody."""

from __future__ import annotations

from pathlib import Path

import pytest
from opened import Open
from sppo_operator.report.page import report
from told import NOW, Told, full, full_curves

WIDTHS = (360, 1600)
SCHEMES = ("light", "dark")
LEAST_CONTRAST = 4.5
"""WCAG 2.2, success criterion 1.4.3, level AA."""

CONTRASTS = """() => {
  const parse = (color) => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const linear = [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || element.closest("title, style") || !element.getClientRects().length) continue;
    const style = getComputedStyle(element), isSvg = element instanceof SVGElement;
    let behind = ground(element);
    const bar = isSvg && element.getAttribute("class")?.startsWith("on-") ? element.previousElementSibling : null;
    if (bar) behind = parse(getComputedStyle(bar).fill);
    const [a, b] = [luminance(parse(isSvg ? style.fill : style.color)), luminance(behind)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), element.tagName + "." + (element.getAttribute("class") || ""),
                element.textContent.slice(0, 40)]);
  }
  return found;
}"""
OUTSIDE = """() => [...document.querySelectorAll("body *")].filter(e => {
  const box = e.getBoundingClientRect();
  const clipped = e.closest(".scroll, pre, blockquote, svg");
  return (!clipped || clipped === e) && box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map(e => e.tagName + "." + (e.getAttribute("class") || ""))"""


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_fetched_run_or_logged(opened: Open, file: Path, width: int, scheme: str) -> None:
    found = opened(width=width, scheme=scheme)
    found.page.locator("details").first.evaluate("details => details.open = true")
    found.page.mouse.move(width / 2, 400)
    found.page.keyboard.press("End")
    assert found.ask("document.title") == "SPPO run lab/demo", "scripts of the model's would change it"
    assert found.requests == [file.as_uri()]
    assert (found.messages, found.windows) == ([], [])
    assert found.ask("document.querySelectorAll('script, img, iframe, link, object, embed, form').length") == 0


def test_the_policy_stops_what_would_slip_through(opened: Open, file: Path, tmp_path: Path) -> None:
    """The second wall: here the escaping is taken away."""
    broken = tmp_path / "broken.html"
    loading = (
        "<script>document.title='run'</script><img src='https://example.invalid/x.png' onerror='document.title=1'>"
    )
    broken.write_text(file.read_text("utf-8").replace("<nav", f"{loading}<nav"), "utf-8")
    found = opened(path=broken)
    assert found.ask("document.title") == "SPPO run lab/demo"
    assert found.refused == {"https://example.invalid/x.png": "csp"}
    assert any("Content Security Policy" in message for message in found.messages)


@pytest.mark.parametrize("width", [*WIDTHS, 700, 1100])
def test_no_page_is_wider_than_its_window(opened: Open, width: int) -> None:
    found = opened(width=width)
    assert found.ask("document.documentElement.scrollWidth") == width
    assert found.ask(OUTSIDE) == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_text_can_be_told_from_what_is_behind_it(opened: Open, width: int, scheme: str) -> None:
    contrasts = opened(width=width, scheme=scheme).ask(CONTRASTS)
    assert len(contrasts) > 300
    assert [found for found in contrasts if found[0] < LEAST_CONTRAST] == []


def test_light_and_dark_differ(opened: Open) -> None:
    grounds = [opened(scheme=scheme).ask("getComputedStyle(document.body).backgroundColor") for scheme in SCHEMES]
    assert grounds == ["rgb(246, 247, 248)", "rgb(18, 20, 23)"]


def test_text_in_charts_is_large_enough_to_read(opened: Open) -> None:
    """A chart is drawn once and scaled to its column."""
    for width in WIDTHS:
        heights = opened(width=width).ask(
            "[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)"
        )
        assert len(heights) > 50
        assert min(heights) > 9


def test_texts_of_a_chart_do_not_lie_over_each_other(opened: Open) -> None:
    overlaps = opened().ask("""() => [...document.querySelectorAll(".chart svg")].flatMap(svg => {
      const texts = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
      return texts.flatMap(([a, p], i) => texts.slice(i + 1).filter(([b, q]) =>
        Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1 && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 4
      ).map(([b]) => [svg.getAttribute("aria-label").slice(0, 30), a, b]));
    })""")
    assert overlaps == []


def test_no_text_of_a_chart_is_cut(opened: Open) -> None:
    cut = opened().ask("""() => [...document.querySelectorAll("figure svg[role=img], .rows svg")].flatMap(svg => {
      const frame = svg.getBoundingClientRect();
      return [...svg.querySelectorAll("text")].filter(t => {
        const box = t.getBoundingClientRect();
        return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 3 || box.bottom > frame.bottom + 3;
      }).map(t => t.textContent);
    })""")
    assert cut == []


@pytest.mark.parametrize("width", WIDTHS)
def test_long_labels_of_a_chart_are_seen(opened: Open, tmp_path: Path, width: int) -> None:
    path = tmp_path / "small.html"
    curves = {name: [-3.1e-10, -1.7e-10] for name in full_curves()}
    path.write_text(report(full()[0], Told(by_training={1: curves}), NOW), "utf-8")
    hidden = opened(width=width, path=path).ask("""() => [...document.querySelectorAll("#training svg text")].filter(t => {
      const svg = t.closest("svg"), frame = svg.getBoundingClientRect(), box = t.getBoundingClientRect();
      const seen = getComputedStyle(svg).overflow === "visible" ? {left: 0, right: innerWidth} : frame;
      return box.left < seen.left || box.right > seen.right;
    }).map(t => t.textContent)""")
    assert hidden == []


def test_charts_and_regions_have_names_for_those_who_do_not_see_them(opened: Open) -> None:
    page = opened().page
    names = [image.get_attribute("aria-label") or "" for image in page.get_by_role("img").all()]
    assert len(names) == 11
    assert "Win rate with 95 % interval. against the base: from 0.5 at 0 to 0.71 at 3" in names[0]
    assert page.get_by_role("region", name="Manifest").count() == 1
    assert page.get_by_role("heading", level=2).first.inner_text() == "Results"
    assert page.get_by_role("table").count() >= 5
    unnamed = page.evaluate(
        "[...document.querySelectorAll('[role=img], [role=region]')].filter(e => !e.ariaLabel).length"
    )
    assert unnamed == 0


def test_it_reads_the_same_without_scripts(opened: Open) -> None:
    page = opened(scripts=False).page
    assert page.get_by_text("Best improvements").is_visible()
    page.get_by_text("Content digest of every stage").click()
    assert page.get_by_text("SHA-256").is_visible()


def test_it_prints_with_everything_unfolded(opened: Open, tmp_path: Path) -> None:
    found = opened()
    found.page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    found.page.emulate_media(media="print")
    assert found.ask("document.querySelector('nav').getClientRects().length") == 0
    assert found.ask("document.querySelector('details figure').checkVisibility({contentVisibilityAuto: true})")
    assert found.ask("[...document.querySelectorAll('pre')].every(p => p.scrollWidth <= p.clientWidth)")
    cut = "e => e.scrollHeight > e.clientHeight + 1 || e.scrollWidth > e.clientWidth + 1"
    assert found.ask(f"[...document.querySelectorAll('pre, blockquote, h4')].filter({cut}).length") == 0


def test_a_click_selects_the_whole_manifest(opened: Open) -> None:
    page = opened().page
    page.get_by_role("region", name="Manifest").click()
    selected = page.evaluate("getSelection().toString()")
    assert selected.startswith("apiVersion: sppo.dev/v1alpha1\nkind: SPPORun")
    assert "claimName: models" in selected


def test_one_answer_does_not_fill_the_screen_or_turn_the_page_around(opened: Open) -> None:
    found = opened()
    assert found.ask("Math.max(...[...document.querySelectorAll('blockquote')].map(q => q.clientHeight))") < 320
    assert found.ask("Math.max(...[...document.querySelectorAll('h4')].map(h => h.clientHeight))") < 160
    facts = found.page.locator("article .facts").first
    assert facts.evaluate("e => getComputedStyle(e).direction") == "ltr"
    arabic = found.page.locator("blockquote", has_text="مرحبا").first
    after = arabic.locator("xpath=following::p[1]")
    assert after.evaluate("e => getComputedStyle(e).direction") == "ltr"
