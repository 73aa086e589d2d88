"""The interactive page, driven with mouse, finger and keys as a reader would."""

from typing import Any

import pytest

from tests.open_page import OpenPage, figures, follow, in_browser, on_stage, state

WIDTHS = (360, 1400)
ARTICLE_BOX = [296, 192, 496, 337]


DRAGS = [
    ((396, 264), (-100, 40), [196, 232, 396, 377]),
    ((396, 264), (-900, 0), [-48, 192, 152, 337]),  # as far as the stage reaches
    ((296, 192), (-40, -30), [256, 162, 496, 337]),
    ((496, 337), (20, 60), [296, 192, 516, 397]),
    ((296, 264), (50, 70), [346, 192, 496, 337]),
    ((396, 337), (30, -45), [296, 192, 496, 292]),
    ((296, 192), (400, 400), [495, 336, 496, 337]),  # never turned inside out
    ((100, 100), (50, 50), ARTICLE_BOX),  # beside the box
]


@in_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_dragging(opened: OpenPage, width: int) -> None:
    browser = opened(width=width)
    for start, by, expected in DRAGS:
        follow(browser, "")
        end = start[0] + by[0], start[1] + by[1]
        browser.drag(on_stage(browser, *start), on_stage(browser, *end))
        assert state(browser)["box"] == pytest.approx(expected, abs=1), start  # a pixel of rounding
        browser.mouse("Moved", *on_stage(browser, 10, 10))
        assert state(browser)["box"] == pytest.approx(expected, abs=1), "held after the release"


@in_browser
def test_a_finger_drags_the_box_and_scrolls_beside_it(opened: OpenPage) -> None:
    browser = opened(width=360)
    scrolled = "document.documentElement.scrollTop"
    start, end = on_stage(browser, 396, 264), on_stage(browser, 346, 164)
    before = browser.evaluate(scrolled)
    browser.swipe(start, end)
    assert state(browser)["box"] == pytest.approx([246, 92, 446, 237], abs=2)
    assert browser.evaluate(scrolled) == before
    browser.swipe(on_stage(browser, 60, 460), on_stage(browser, 60, 60))
    assert state(browser)["box"] == pytest.approx([246, 92, 446, 237], abs=2)
    assert browser.evaluate(scrolled) > before


@in_browser
def test_pointing_chooses_a_bin_and_its_nearest_point(opened: OpenPage) -> None:
    browser = opened()
    browser.mouse("Moved", *on_stage(browser, 14.9 * 32, 10.2 * 32))
    browser.settle()
    assert state(browser)["at"] == [2, 2, 1, 1]
    browser.mouse("Moved", *on_stage(browser, 100, 100))
    browser.settle()
    assert state(browser)["at"] == [2, 2, 1, 1]


@in_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_arrows_move_the_box_and_with_shift_resize_it(opened: OpenPage, width: int) -> None:
    browser = opened(width=width)
    browser.evaluate("document.getElementById('stage').focus()")
    browser.press("ArrowLeft", times=3)
    browser.press("ArrowDown", times=2)
    assert state(browser)["box"] == [293, 194, 493, 339]
    browser.press("ArrowRight", "shift", times=4)
    browser.press("ArrowUp", "shift")
    assert state(browser)["box"] == [293, 194, 497, 338]
    assert figures(browser)["Its size"] == "6.38 × 4.50 cells"


CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("", "#pooler-pool", {"pooler": "pool"}),
    ("", "#pooler-warp", {"pooler": "warp"}),
    ("", "#pooler-prroi", {"pooler": "prroi"}),
    ("pooler=pool", "#pooler-align", {"pooler": "align"}),
    ("pooler=pool", "#rounding-floor", {"rounding": "floor"}),
    ("pooler=warp", "#mode-mnc", {"mode": "mnc"}),
    ("pooler=warp&samples=0", "#mode-mnc", {"mode": "mnc", "samples": 2}),
    ("", "#placement-thirds", {"placement": "thirds"}),
    ("", "#stride-16", {"stride": 16}),
    *(("", f"#bins-{n}", {"bins": n}) for n in (2, 4, 5, 7, 14)),
    *(("", f"#samples-{n}", {"samples": n}) for n in (1, 3, 4, 0)),
    ("", "#agg-max", {"agg": "max"}),
    ("", "#aligned-false", {"aligned": False}),
    *(("", f"#map-{name}", {"map": name}) for name in ("ramp", "checker", "random")),
    ("", "#card-pool", {"pooler": "pool"}),
    ("", "#card-warp", {"pooler": "warp"}),
    ("pooler=warp", "#card-align", {"pooler": "align"}),
    ("", "#bin-1-2", {"at": [1, 2, 0, 0]}),
    ("box=1,2,30,40&pooler=pool&stride=16", "#reset", {"pooler": "align", "stride": 32}),
]


@in_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_each_control_changes_what_it_says_and_nothing_else(opened: OpenPage, width: int) -> None:
    browser = opened(width=width)
    for hash_, selector, change in CHANGES:
        follow(browser, hash_)
        before = state(browser)
        if selector == "#reset":
            before["box"] = ARTICLE_BOX
        browser.click(selector)
        assert state(browser) == {**before, **change}, selector
        shown = browser.evaluate("lab.shown().values.length")
        assert shown == state(browser)["bins"], selector


@in_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_the_box_as_numbers(opened: OpenPage, width: int) -> None:
    browser = opened(width=width)
    for field, text in (("#x", "100"), ("#y", "40"), ("#w", "64"), ("#h", "32")):
        browser.type(field, text)
    assert state(browser)["box"] == [100, 40, 164, 72]
    browser.type("#w", "")
    assert state(browser)["box"] == [100, 40, 164, 72]
    browser.type("#w", "99999")
    assert state(browser)["box"] == [100, 40, 560, 72]


@in_browser
def test_arrows_choose_a_bin_of_the_output(opened: OpenPage) -> None:
    browser = opened()
    browser.evaluate("document.getElementById('output').focus()")
    browser.press("ArrowRight", times=5)
    browser.press("ArrowDown")
    assert state(browser)["at"] == [1, 2, 0, 0]
    chosen = "document.querySelector('#output [aria-selected=true]').id"
    assert browser.evaluate(chosen) == "bin-1-2"


@in_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_tab_reaches_every_control_and_shows_where_it_is(opened: OpenPage, width: int) -> None:
    browser = opened(width=width)
    # Of a group of radio buttons, Tab reaches the one that is chosen; arrows reach the others.
    wanted = browser.evaluate(
        "[...document.querySelectorAll("
        "'button, input:not([type=radio]), input:checked, [tabindex]')]"
        ".filter(e => e.checkVisibility()).map(e => e.id)"
    )
    reached = []
    for _ in wanted:
        browser.press("Tab")
        name, outline = browser.evaluate(
            "(() => { const e = document.activeElement;"
            "const seen = e.type === 'radio' ? e.nextElementSibling : e;"
            "return [e.id, getComputedStyle(seen).outlineStyle]; })()"
        )
        reached.append(name)
        assert outline == "solid", name
    assert sorted(reached) == sorted(wanted) and len(wanted) > 15
    browser.evaluate("document.getElementById('stride-32').focus()")
    browser.press("ArrowLeft")
    assert state(browser)["stride"] == 16


@in_browser
def test_every_control_has_a_name(opened: OpenPage) -> None:
    browser = opened()
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "radio", "spinbutton", "application", "grid", "group"}
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node["ignored"] and node["role"]["value"] in roles
    ]
    assert [role for role, name in named if not name.strip()] == []
    assert {role for role, _ in named} == roles
