//! Properties of elements: which the profile takes, which have no effect, which can be written in another way.

use std::ops::Range;

use roxmltree::Node;

use super::{Around, Fixer, LEAVES};
use crate::names::shown;
use crate::policy::svg::geometry::written;
use crate::policy::svg::markup::{name_span, own, own_node, svg_name};
use crate::policy::svg::rules::{self, Element};
use crate::policy::svg::value::{self, Reference};

/// What becomes of a property.
pub(super) enum Verdict {
    /// It becomes an attribute.
    Keep(String),
    /// It has no effect.
    Drop,
    /// Other attributes stand for it.
    Write(Vec<(String, String)>),
    /// Why not, and the mend.
    Refuse(String, String),
}

/// Properties that can be attributes too (SVG 1.1 appendix N, SVG 2 §6.6); what `style` has beyond them is taken as it comes.
const PROPERTIES: &[&str] = &[
    "alignment-baseline",
    "baseline-shift",
    "clip",
    "clip-path",
    "clip-rule",
    "color",
    "color-interpolation",
    "color-interpolation-filters",
    "color-profile",
    "color-rendering",
    "cursor",
    "direction",
    "display",
    "display-align",
    "dominant-baseline",
    "enable-background",
    "fill",
    "fill-opacity",
    "fill-rule",
    "filter",
    "flood-color",
    "flood-opacity",
    "font-family",
    "font-size",
    "font-size-adjust",
    "font-stretch",
    "font-style",
    "font-variant",
    "font-weight",
    "glyph-orientation-horizontal",
    "glyph-orientation-vertical",
    "image-rendering",
    "isolation",
    "kerning",
    "letter-spacing",
    "lighting-color",
    "line-increment",
    "marker",
    "marker-end",
    "marker-mid",
    "marker-start",
    "mask",
    "mask-type",
    "mix-blend-mode",
    "opacity",
    "overflow",
    "paint-order",
    "pointer-events",
    "shape-rendering",
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
    "text-decoration",
    "text-rendering",
    "unicode-bidi",
    "vector-effect",
    "visibility",
    "white-space",
    "word-spacing",
    "writing-mode",
];

/// Properties of what a logo has not: filters, events, clips, raster images.
const OF_OTHERS: &[&str] = &[
    "clip",
    "clip-rule",
    "color-interpolation-filters",
    "color-profile",
    "cursor",
    "enable-background",
    "flood-color",
    "flood-opacity",
    "image-rendering",
    "isolation",
    "lighting-color",
    "mask-type",
    "overflow",
    "pointer-events",
    "solid-color",
    "solid-opacity",
];

const OF_TEXT: &[&str] = &[
    "alignment-baseline",
    "baseline-shift",
    "direction",
    "display-align",
    "dominant-baseline",
    "font",
    "kerning",
    "letter-spacing",
    "line-height",
    "line-increment",
    "unicode-bidi",
    "white-space",
    "word-spacing",
    "writing-mode",
    "inline-size",
    "shape-inside",
    "shape-margin",
    "shape-padding",
    "shape-subtract",
    "tab-size",
];

/// The values that are as if a property were not there.
const WITHOUT_EFFECT: &[(&str, &[&str])] = &[
    ("clip-path", &["none"]),
    ("color-interpolation", &["auto", "sRGB", "inherit"]),
    ("color-rendering", &["auto", "optimizeSpeed", "optimizeQuality", "inherit"]),
    ("display", &["inline", "block", "inherit"]),
    ("filter", &["none"]),
    ("marker", &["none"]),
    ("marker-end", &["none"]),
    ("marker-mid", &["none"]),
    ("marker-start", &["none"]),
    ("mask", &["none"]),
    ("mix-blend-mode", &["normal"]),
    (
        "paint-order",
        &["normal", "fill", "fill stroke", "fill stroke markers", "fill markers stroke", "markers fill stroke"],
    ),
    ("shape-rendering", &["auto", "geometricPrecision", "inherit"]),
    ("text-rendering", &["auto", "optimizeSpeed", "optimizeLegibility", "geometricPrecision", "inherit"]),
    ("visibility", &["visible", "inherit"]),
];

/// Tells whether an attribute of the name is a property, which a style can set too.
pub(super) fn is_property(name: &str) -> bool {
    PROPERTIES.contains(&name)
}

/// Tells whether an attribute that is no property has no effect on the picture.
pub(super) fn is_idle(element: &str, name: &str, value: &str) -> bool {
    let is_root = element == "svg";
    if ["data-", "aria-", "on"].iter().any(|begin| name.starts_with(begin)) {
        return true;
    }
    match name {
        "id"
        | "xml:id"
        | "lang"
        | "tabindex"
        | "focusable"
        | "contentStyleType"
        | "zoomAndPan"
        | "externalResourcesRequired"
        | "baseURI"
        | "playbackOrder"
        | "snapshotTime"
        | "timelineBegin"
        | "editable"
        | "nonce" => true,
        "target" | "rel" | "download" | "href" | "hreflang" | "ping" | "referrerpolicy" | "type" => element == "a",
        "x" | "y" => is_root,
        "preserveAspectRatio" => is_root && value.starts_with('x') && value.ends_with("meet"),
        "width" | "height" => element == "use",
        _ => false,
    }
}

/// Returns a share between 0 and 1, which may be written in percent.
pub(super) fn share(text: &str) -> Option<f64> {
    let text = text.trim();
    let number = match text.strip_suffix('%') {
        Some(percent) => value::number(percent)? / 100.0,
        None => value::number(text)?,
    };
    Some(number.clamp(0.0, 1.0))
}

/// Returns where a property of an element is written.
pub(super) fn span(node: Node<'_, '_>, property: &str) -> Range<usize> {
    let style = own_node(node, "style").filter(|style| style.value().contains(property));
    let place = style.or_else(|| own_node(node, property));
    place.map_or_else(|| name_span(node), |attribute| attribute.range())
}

impl<'a, 'd> Fixer<'a, 'd> {
    pub(super) fn verdict(
        &mut self,
        node: Node<'a, 'd>,
        rule: &Element,
        (name, text): (&str, &str),
        around: &Around,
    ) -> Verdict {
        let refuse = |message: String| Verdict::Refuse(message, super::super::check::attribute_help(name).to_owned());
        let without = || WITHOUT_EFFECT.iter().any(|(known, values)| *known == name && values.contains(&text));
        let is_of_text =
            OF_TEXT.contains(&name) || (name.starts_with("text-") || name.starts_with("font-")) && name != "font-size";
        if OF_OTHERS.contains(&name) && !(name.starts_with("solid-") && rule.name == "solidColor")
            || name.starts_with('-')
            || (is_of_text && !self.has_text)
            || (without() && !rule.may_have(name))
        {
            return Verdict::Drop;
        }
        if rule.may_have(name) {
            if rules::words(name).is_some_and(|words| !words.contains(&text)) {
                return if without() {
                    Verdict::Drop
                } else {
                    refuse(format!("`{}` is no `{name}` of the profile", shown(text)))
                };
            }
            if ["initial", "unset", "revert"].contains(&text)
                || text.starts_with("var(")
                || text.starts_with("context-")
            {
                return refuse(format!("`{}` is no `{name}` of the profile", shown(text)));
            }
            return self.painted(name, text);
        }
        match name {
            "opacity" => self.opacity(node, rule.name, text, around),
            "clip-path" if around.is_plain && self.is_clip_of_all(text) => Verdict::Drop,
            "paint-order" if around.stroke == "none" => Verdict::Drop,
            _ => refuse(format!("`{name}: {}` cannot be kept, and changes the picture", shown(text))),
        }
    }

    /// A colour is kept, and a reference to a gradient; patterns are not.
    fn painted(&self, name: &str, text: &str) -> Verdict {
        let is_gradient = |node: Node<'_, '_>| {
            svg_name(node).is_some_and(|name| ["linearGradient", "radialGradient", "solidColor"].contains(&name))
        };
        match value::reference(text) {
            Reference::None => Verdict::Keep(text.to_owned()),
            Reference::Local(id) if self.target(id).is_some_and(is_gradient) => {
                // Quotes are of CSS alone.
                Verdict::Keep(text.replace(['"', '\''], ""))
            }
            Reference::Local(_) | Reference::Foreign => Verdict::Refuse(
                format!("`{}` is no gradient of the drawing", shown(text)),
                format!("give it a colour or a gradient as its `{name}`"),
            ),
        }
    }

    /// The opacity of a shape that is only filled, or only stroked, is that of its fill or stroke.
    fn opacity(&mut self, node: Node<'a, 'd>, element: &str, text: &str, around: &Around) -> Verdict {
        let refuse = |message: &str| {
            let help = "give fill and stroke opacities of their own, or colours as they look in the end";
            Verdict::Refuse(message.to_owned(), help.to_owned())
        };
        let Some(opacity) = share(text) else { return refuse("this opacity is none") };
        if opacity >= 1.0 {
            return Verdict::Drop;
        }
        if element == "stop" || element.ends_with("Gradient") || element == "solidColor" || element == "defs" {
            return Verdict::Drop;
        }
        if !LEAVES.contains(&element) {
            return refuse("the opacity of several things at once cannot be kept");
        }
        if self.has_uses && (self.is_referenced(node) || node.ancestors().any(|above| self.is_referenced(above))) {
            return refuse("the opacity of what `use` repeats cannot be kept");
        }
        let (name, own) = match (around.fill.as_str(), around.stroke.as_str()) {
            ("none", "none") => return Verdict::Drop,
            (_, "none") => ("fill-opacity", around.fill_opacity),
            ("none", _) => ("stroke-opacity", around.stroke_opacity),
            _ => return refuse("the opacity of a shape that is filled and stroked cannot be kept"),
        };
        if own.is_nan() {
            return refuse("this opacity cannot be reckoned");
        }
        Verdict::Write(vec![(name.to_owned(), written(own * opacity))])
    }

    /// Tells whether a clip lets all of the frame be seen.
    fn is_clip_of_all(&self, text: &str) -> bool {
        let Reference::Local(id) = value::reference(text) else { return false };
        let clip = self.target(id).filter(|node| svg_name(*node) == Some("clipPath"));
        let Some((clip, [left, top, width, height])) = clip.zip(self.frame) else { return false };
        let mut inner = clip.children().filter(Node::is_element);
        let (Some(rect), None) = (inner.next(), inner.next()) else { return false };
        let plain = |node: Node<'_, '_>, also: &[&str]| {
            node.attributes().all(|attribute| attribute.namespace().is_none() && also.contains(&attribute.name()))
        };
        let side = |name| own(rect, name).map_or(Some(0.0), value::number);
        let (Some(x), Some(y), Some(w), Some(h)) = (side("x"), side("y"), side("width"), side("height")) else {
            return false;
        };
        svg_name(rect) == Some("rect")
            && self.sheet.is_empty()
            && plain(clip, &["id"])
            && plain(rect, &["x", "y", "width", "height", "fill", "id"])
            && x <= left
            && y <= top
            && x + w >= left + width
            && y + h >= top + height
    }
}
