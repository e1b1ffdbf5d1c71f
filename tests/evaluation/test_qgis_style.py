from itertools import pairwise
from xml.etree import ElementTree

import config
from evaluation.qgis_style import DOCTYPE, region_style


def parsed(explained: bool = False) -> ElementTree.Element:
    text = region_style(explained, {})
    assert text.startswith(DOCTYPE)
    return ElementTree.fromstring(text)


def test_regions_are_coloured_by_their_mean_score() -> None:
    style = parsed()
    renderer = style.find("renderer-v2")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("attr")) == ("graduatedSymbol", "mean_score")
    assert style.findtext("layerGeometryType") == "2"  # polygons


def test_the_classes_cover_all_scores_without_gap() -> None:
    ranges = parsed().findall("renderer-v2/ranges/range")
    limits = [(float(one.attrib["lower"]), float(one.attrib["upper"])) for one in ranges]
    assert limits[0] == (0, config.EVAL_STAGE2_FIXED_THRESH)
    assert limits[-1][1] == 2
    assert all(lower < upper for lower, upper in limits)
    assert all(before[1] == after[0] for before, after in pairwise(limits))


def test_every_class_has_a_translucent_fill_of_its_own_colour_and_an_opaque_outline() -> None:
    style = parsed()
    symbols = {symbol.get("name"): symbol for symbol in style.findall("renderer-v2/symbols/symbol")}
    colors = set()
    for one in style.findall("renderer-v2/ranges/range"):
        symbol = symbols[one.get("symbol")]
        options = {
            option.get("name"): option.get("value")
            for option in symbol.findall("layer[@class='SimpleFill']/Option/Option")
        }
        *color, opacity = str(options["color"]).split(",")
        assert opacity == "128"
        assert options["outline_color"] == "255,255,255,255"
        colors.add(tuple(color))
    assert len(colors) == len(symbols) == 9


def test_explained_regions_have_a_map_tip() -> None:
    assert parsed().find("mapTip") is None
    tip = parsed(explained=True).findtext("mapTip")
    assert tip is not None
    assert tip.count("[%") == tip.count("%]") == 5
    for name in ('"region"', '"mean_score"', '"most_similar_date"', '"similarity"', '"usual_score"', '"novelty"'):
        assert name in tip
    assert "layername=region_dates" in tip
