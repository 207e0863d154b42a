//! The profile as data: elements, their attributes and children, and the values that are words of a list
//! (draft-svg-tiny-ps-abrotman-12; the lists are those of the RelaxNG schema that receivers validate with).

type Names = &'static [&'static str];

/// What an element may have.
#[derive(Debug)]
pub(super) struct Element {
    /// Its name in the SVG namespace.
    pub(super) name: &'static str,
    /// Its attributes, in groups.
    attributes: [Names; 3],
    /// The elements in it, in groups.
    children: [Names; 2],
    /// Whether text may stand in it.
    pub(super) text: bool,
}

impl Element {
    /// Returns what an element of the SVG namespace may have; none if it may not be there at all.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        ELEMENTS.iter().find(|element| element.name == name)
    }

    /// Tells whether it may have an attribute; those of XML's own namespace are named `xml:id` and so on.
    pub(super) fn may_have(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|group| group.contains(&attribute))
    }

    /// Tells whether an element may stand in it.
    pub(super) fn may_hold(&self, child: &str) -> bool {
        self.children.iter().any(|group| group.contains(&child))
    }
}

/// Tells whether an element draws, or belongs to what does; the title stands before all of these.
pub(super) fn is_graphic(name: &str) -> bool {
    SHAPES.contains(&name)
}

/// Returns the words that an attribute may have as its value; none if it is no matter of words.
pub(super) fn words(attribute: &str) -> Option<Names> {
    WORDS.iter().find(|(name, _)| *name == attribute).map(|(_, words)| *words)
}

const COMMON: Names = &[
    "about",
    "class",
    "color",
    "color-rendering",
    "content",
    "datatype",
    "direction",
    "display-align",
    "fill",
    "fill-opacity",
    "fill-rule",
    "font-family",
    "font-size",
    "font-style",
    "font-variant",
    "font-weight",
    "id",
    "line-increment",
    "property",
    "rel",
    "resource",
    "rev",
    "role",
    "solid-color",
    "solid-opacity",
    "stop-color",
    "stop-opacity",
    "stroke",
    "stroke-dasharray",
    "stroke-dashoffset",
    "stroke-linecap",
    "stroke-linejoin",
    "stroke-miterlimit",
    "stroke-opacity",
    "stroke-width",
    "text-align",
    "text-anchor",
    "typeof",
    "unicode-bidi",
    "vector-effect",
    "xml:base",
    "xml:id",
    "xml:lang",
    "xml:space",
];
const DESCRIPTIVE: Names = &[
    "about",
    "buffered-rendering",
    "class",
    "content",
    "datatype",
    "display",
    "id",
    "image-rendering",
    "property",
    "rel",
    "requiredFonts",
    "resource",
    "rev",
    "role",
    "shape-rendering",
    "systemLanguage",
    "text-rendering",
    "typeof",
    "viewport-fill",
    "viewport-fill-opacity",
    "visibility",
    "xml:base",
    "xml:id",
    "xml:lang",
    "xml:space",
];
const DRAWN: Names = &["requiredFonts", "systemLanguage", "transform"];
const ROOT: Names = &[
    "baseProfile",
    "contentScriptType",
    "externalResourcesRequired",
    "focusable",
    "height",
    "playbackOrder",
    "preserveAspectRatio",
    "snapshotTime",
    "timelineBegin",
    "version",
    "viewBox",
    "width",
    "zoomAndPan",
];
const SHAPES: Names = &[
    "circle",
    "defs",
    "ellipse",
    "g",
    "line",
    "linearGradient",
    "path",
    "polygon",
    "polyline",
    "radialGradient",
    "rect",
    "solidColor",
    "text",
    "textArea",
    "use",
];

const ELEMENTS: &[Element] = &[
    drawn("circle", &["cx", "cy", "r"]),
    element("defs", [COMMON, &[], &[]], [SHAPES, &[]]),
    words_only("desc", [DESCRIPTIVE, &[], &[]]),
    drawn("ellipse", &["cx", "cy", "rx", "ry"]),
    element("g", [COMMON, DRAWN, &[]], [SHAPES, &[]]),
    drawn("line", &["x1", "x2", "y1", "y2"]),
    element("linearGradient", [COMMON, &["gradientUnits", "x1", "x2", "y1", "y2"], &[]], [&["stop"], &[]]),
    words_only("metadata", [&[], &[], &[]]),
    drawn("path", &["d", "pathLength"]),
    drawn("polygon", &["points"]),
    drawn("polyline", &["points"]),
    element("radialGradient", [COMMON, &["cx", "cy", "gradientUnits", "r"], &[]], [&["stop"], &[]]),
    drawn("rect", &["height", "rx", "ry", "width", "x", "y"]),
    element("solidColor", [COMMON, &[], &[]], [&[], &[]]),
    element("stop", [COMMON, &["offset"], &[]], [&[], &[]]),
    element("svg", [COMMON, ROOT, &[]], [&["desc", "metadata", "title"], SHAPES]),
    words_only("text", [COMMON, DRAWN, &["editable", "rotate", "x", "y"]]),
    words_only("textArea", [COMMON, DRAWN, &["height", "width", "x", "y"]]),
    words_only("title", [DESCRIPTIVE, &[], &[]]),
    drawn("use", &["href", "x", "y"]),
];

const fn drawn(name: &'static str, own: Names) -> Element {
    element(name, [COMMON, DRAWN, own], [&[], &[]])
}

const fn words_only(name: &'static str, attributes: [Names; 3]) -> Element {
    Element { name, attributes, children: [&[], &[]], text: true }
}

const fn element(name: &'static str, attributes: [Names; 3], children: [Names; 2]) -> Element {
    Element { name, attributes, children, text: false }
}

const RENDERING: Names = &["auto", "optimizeSpeed", "optimizeQuality", "inherit"];

const WORDS: &[(&str, Names)] = &[
    ("baseProfile", &["tiny-ps"]),
    ("buffered-rendering", &["auto", "dynamic", "static", "inherit"]),
    ("color-rendering", RENDERING),
    ("direction", &["ltr", "rtl", "inherit"]),
    (
        "display",
        &[
            "inline",
            "block",
            "list-item",
            "run-in",
            "compact",
            "marker",
            "table",
            "inline-table",
            "table-row-group",
            "table-header-group",
            "table-footer-group",
            "table-row",
            "table-column-group",
            "table-column",
            "table-cell",
            "table-caption",
            "none",
            "inherit",
        ],
    ),
    ("display-align", &["auto", "before", "center", "after", "inherit"]),
    ("editable", &["none"]),
    ("externalResourcesRequired", &["false"]),
    ("fill-rule", &["nonzero", "evenodd", "inherit"]),
    ("focusable", &["false"]),
    ("font-style", &["normal", "italic", "oblique", "inherit"]),
    ("font-variant", &["normal", "small-caps", "inherit"]),
    ("font-weight", &["normal", "bold", "bolder", "lighter", "inherit"]),
    ("gradientUnits", &["userSpaceOnUse", "objectBoundingBox"]),
    ("image-rendering", RENDERING),
    ("playbackOrder", &["all"]),
    ("preserveAspectRatio", &["none", "none meet", "xMidYMid", "xMidYMid meet"]),
    ("shape-rendering", &["auto", "optimizeSpeed", "crispEdges", "geometricPrecision", "inherit"]),
    ("snapshotTime", &["none"]),
    ("stroke-linecap", &["butt", "round", "square", "inherit"]),
    ("stroke-linejoin", &["miter", "round", "bevel", "inherit"]),
    ("text-align", &["start", "center", "end", "inherit"]),
    ("text-anchor", &["start", "middle", "end", "inherit"]),
    ("text-rendering", &["auto", "optimizeSpeed", "optimizeLegibility", "geometricPrecision", "inherit"]),
    ("timelineBegin", &["onLoad"]),
    ("unicode-bidi", &["normal", "embed", "bidi-override", "inherit"]),
    ("vector-effect", &["none", "non-scaling-stroke", "inherit"]),
    ("version", &["1.2"]),
    ("visibility", &["visible", "hidden", "collapse", "inherit"]),
    ("xml:space", &["default", "preserve"]),
    ("zoomAndPan", &["disable"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_has_twenty_elements_and_forty_four_attributes_for_all_that_draw() {
        assert_eq!((ELEMENTS.len(), COMMON.len()), (20, 44));
        assert!(ELEMENTS.is_sorted_by_key(|element| element.name) && WORDS.is_sorted());
        assert!(
            ELEMENTS
                .iter()
                .flat_map(|element| element.children)
                .flat_map(|group| group.iter())
                .all(|child| { Element::named(child).is_some() })
        );
    }
}
