"""Styles of the outputs in QGIS: classes of scores, and a map tip that explains a region (docs/data.md)."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from xml.etree import ElementTree

# Limits of the classes of mean scores. Most scores are low, so the classes of high scores are wider.
LOWEST = 0.0  # a region may be below the threshold, because it includes the pixels that the closing added
BREAKS = (0.08, 0.16, 0.24, 0.32, 0.4, 0.6, 0.8, 1.2, 2.0)  # from the default threshold to the highest possible score
VIRIDIS = (
    *((68, 1, 84), (70, 50, 126), (54, 92, 141), (39, 127, 142)),
    *((31, 161, 135), (74, 193, 109), (160, 218, 57), (253, 231, 37)),
)
GREY = (128, 128, 128)  # below the first break
SHARE_BREAKS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # of the share of a footprint that is flagged
OPACITY = 128  # of the fill, 0 to 255
CASING = {"line_color": "0,0,0,160", "line_width": "1.1", "line_width_unit": "MM", "joinstyle": "round"}
OUTLINE = {
    "style": "solid",
    "joinstyle": "round",
    "outline_color": "255,255,255,255",
    "outline_style": "solid",
    "outline_width": "0.5",
    "outline_width_unit": "MM",
}

POLYGONS = "2"  # QGIS's number for layers of polygons
DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"

# QGIS evaluates the expressions between [% and %]. A value that is null makes a whole text null, which coalesce omits.
# The table is looked up by its file, because another event's table can be open under the same name.
MAP_TIP = """\
<p><b>Region [% "region" %]</b>: mean score [% format_number("mean_score", 2) %].
[% coalesce(
  'Most similar date: ' || replace("most_similar_date", '<', '&lt;')
    || ' (similarity ' || format_number("similarity", 2) || ').',
  'No date could be compared.') %]
[% coalesce(
  'Usual score ' || format_number("usual_score", 2) || ', novelty ' || format_number("novelty", 2) || '.',
  '') %]</p>
[% with_variable(
  'table',
  array_first(array_filter(
    @layer_ids,
    strpos(
      layer_property(@element, 'source'),
      regexp_replace(layer_property(@layer_id, 'source'), '[|].*', '') || '|layername=region_dates') = 1)),
  CASE
    WHEN @table IS NULL THEN '<p>Add the table region_dates of this file to see the similarity with each date.</p>'
    ELSE '<table><tr><th>date</th><th colspan="2">similarity</th></tr>' || aggregate(
      layer:=@table,
      aggregate:='concatenate',
      expression:=
        '<tr><td>' || replace("date", '<', '&lt;') || '</td>'
        || CASE
          WHEN "similarity" IS NULL THEN '<td>not compared</td><td></td>'
          ELSE '<td style="color: #277f8e">' || rpad('', to_int(round(20 * max("similarity", 0))), '█') || '</td>'
            || '<td align="right">' || format_number("similarity", 2) || '</td>'
        END || '</tr>',
      filter:="region" = attribute(@parent, 'region'),
      order_by:=$id) || '</table>'
  END) %]
"""


def region_style(explained: bool, aliases: Mapping[str, str]) -> str:
    """Return the style of regions as QML.

    `explained`: whether the regions have the fields and the table of an explanation. `aliases`: names by field.
    """
    style = _vector_style("mean_score", (LOWEST, *BREAKS), (GREY, *VIRIDIS), aliases)
    if explained:
        ElementTree.SubElement(style, "mapTip", enabled="1").text = MAP_TIP
    return _text(style)


def footprint_style(attribute: str, aliases: Mapping[str, str]) -> str:
    """Return the style of footprints as QML: colours by the share flagged, the field `attribute`."""
    return _text(_vector_style(attribute, SHARE_BREAKS, (GREY, *VIRIDIS[1::2]), aliases))


def score_style(band: int) -> str:
    """Return the style of a map of scores as QML: 0 is transparent, and every class has a name. `band`: to show."""
    style = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology")
    renderer = ElementTree.SubElement(
        ElementTree.SubElement(style, "pipe"),
        "rasterrenderer",
        {"type": "singlebandpseudocolor", "band": str(band), "opacity": "1", "alphaBand": "-1", "nodataColor": ""}
        | {"classificationMin": "0", "classificationMax": f"{BREAKS[-1]:g}"},
    )
    shader = ElementTree.SubElement(
        ElementTree.SubElement(renderer, "rastershader"),
        "colorrampshader",
        {"colorRampType": "DISCRETE", "classificationMode": "1", "clip": "0"}
        | {"minimumValue": "0", "maximumValue": f"{BREAKS[-1]:g}"},
    )
    _add_class(shader, 0.0, (0, 0, 0), 0, "0: no change that counts")
    for (lower, upper), color in zip(pairwise((LOWEST, *BREAKS)), (GREY, *VIRIDIS), strict=True):
        _add_class(shader, upper, color, OPACITY if lower == LOWEST else 255, f"{lower:g} – {upper:g}")
    return _text(style)


def _add_class(shader: ElementTree.Element, upper: float, color: tuple[int, ...], alpha: int, label: str) -> None:
    text = "#{:02x}{:02x}{:02x}".format(*color)
    ElementTree.SubElement(shader, "item", value=f"{upper:g}", color=text, alpha=str(alpha), label=label)


def _vector_style(
    attribute: str, limits: Sequence[float], colors: Sequence[tuple[int, ...]], aliases: Mapping[str, str]
) -> ElementTree.Element:
    """Return the style of polygons whose colours are classes of an attribute."""
    style = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology|MapTips|Fields")
    renderer = ElementTree.SubElement(
        style, "renderer-v2", type="graduatedSymbol", attr=attribute, graduatedMethod="GraduatedColor"
    )
    ranges, symbols = (ElementTree.SubElement(renderer, name) for name in ("ranges", "symbols"))
    for number, ((lower, upper), color) in enumerate(zip(pairwise(limits), colors, strict=True)):
        label = f"{lower:g} – {upper:g}"
        attributes = {"lower": str(lower), "upper": str(upper), "label": label, "symbol": str(number), "render": "true"}
        ElementTree.SubElement(ranges, "range", attributes)
        _add_symbol(symbols, str(number), color)
    named = ElementTree.SubElement(style, "aliases")
    for index, (field, name) in enumerate(aliases.items(), 1):
        ElementTree.SubElement(named, "alias", field=field, index=str(index), name=name)
    ElementTree.SubElement(style, "layerGeometryType").text = POLYGONS
    return style


def _text(style: ElementTree.Element) -> str:
    ElementTree.indent(style)
    return DOCTYPE + ElementTree.tostring(style, encoding="unicode")


def _add_symbol(symbols: ElementTree.Element, name: str, color: tuple[int, ...]) -> None:
    """Add a translucent fill with a white outline on a dark one, which is visible over any image."""
    symbol = ElementTree.SubElement(symbols, "symbol", type="fill", name=name, alpha="1")
    fill = {"color": ",".join(map(str, (*color, OPACITY))), **OUTLINE}
    for kind, options, locked in (("SimpleLine", CASING, "1"), ("SimpleFill", fill, "0")):  # 1: keeps its colour
        layer = ElementTree.SubElement(symbol, "layer", {"class": kind, "enabled": "1", "pass": "0", "locked": locked})
        values = ElementTree.SubElement(layer, "Option", type="Map")
        for option, value in options.items():
            ElementTree.SubElement(values, "Option", type="QString", name=option, value=value)
