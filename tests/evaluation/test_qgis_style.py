from itertools import pairwise
from xml.etree import ElementTree

import config
from evaluation.polygons import ALIASES, EXPLANATION_FIELDS, FIELDS
from evaluation.qgis_style import BREAKS, DOCTYPE, footprint_style, region_style, score_style


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


def test_fields_have_titles_with_units() -> None:
    style = ElementTree.fromstring(region_style(False, ALIASES))
    names = {alias.attrib["field"]: alias.attrib["name"] for alias in style.findall("aliases/alias")}
    assert names["area_m2"] == "Area (m²)"
    assert {name for name, _ in (*FIELDS, *EXPLANATION_FIELDS)} <= names.keys()


def test_a_map_of_scores_has_named_classes_and_a_transparent_zero() -> None:
    style = ElementTree.fromstring(score_style(3))
    renderer = style.find("pipe/rasterrenderer")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("band")) == ("singlebandpseudocolor", "3")
    classes = renderer.findall("rastershader/colorrampshader/item")
    assert (classes[0].get("value"), classes[0].get("alpha")) == ("0", "0")
    assert [one.get("alpha") for one in classes[1:3]] == ["128", "255"]
    assert [float(one.attrib["value"]) for one in classes] == [0, *BREAKS]
    assert classes[1].get("label") == "0 – 0.08"


def test_footprints_are_coloured_by_the_share_flagged() -> None:
    style = ElementTree.fromstring(footprint_style("flagged_0m", {}))
    renderer = style.find("renderer-v2")
    assert renderer is not None
    assert renderer.get("attr") == "flagged_0m"
    ranges = [(one.get("lower"), one.get("upper")) for one in renderer.findall("ranges/range")]
    assert ranges == [("0.0", "0.1"), ("0.1", "0.25"), ("0.25", "0.5"), ("0.5", "0.75"), ("0.75", "1.0")]
