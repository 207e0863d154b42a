//! What of a drawing is not as the profile wants it, each finding with its place and how to mend it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use roxmltree::{Attribute, Document, Node, NodeId};

use super::LARGEST_LOGO;
use super::markup::{Markup, SVG, XLINK, attribute_name, name_span, own, own_node, svg_name, written_name};
use super::rules::{self, Element};
use super::value::{self, Reference};
use crate::diag::{Diagnostic, Place, Source, did_you_mean};
use crate::names::shown;

/// How many findings are reported: nobody reads more at once, and to tell the line of each takes time.
const MOST: usize = 50;

/// How much may come of `use`: how many elements are drawn in all, and how deep one refers to another.
const DRAWN: usize = 10_000;
const DEPTH: usize = 50;

/// Titles that tell a reader nothing.
const EMPTY_WORDS: [&str; 12] = [
    "artboard 1",
    "artwork",
    "drawing",
    "ebene 1",
    "icon",
    "image",
    "layer 1",
    "logo",
    "svg",
    "title",
    "unbenannt",
    "untitled",
];

/// Finds what of a drawing does not conform to SVG Tiny PS, and what receivers refuse beyond that, sorted by place.
/// A drawing without errors conforms; warnings are about what some receivers refuse.
pub fn check(source: &Arc<Source>) -> Vec<Diagnostic> {
    let mut checker = Checker { source: Arc::clone(source), findings: Vec::new() };
    if let Err(stopped) = checker.whole() {
        checker.findings.push(*stopped);
    }
    let mut findings = checker.findings;
    findings.sort_by_key(|finding| finding.place.as_ref().map(|place| place.span.start));
    findings.truncate(MOST);
    findings
}

struct Checker {
    source: Arc<Source>,
    findings: Vec<Diagnostic>,
}

/// What the elements of a drawing are called by.
type Names<'a, 'd> = HashMap<&'a str, Node<'a, 'd>>;

impl Checker {
    fn error(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        at: (Range<usize>, &str),
        help: impl Into<String>,
    ) {
        self.add(Diagnostic::error(code, message, help), at);
    }

    fn warning(&mut self, code: &'static str, message: impl Into<String>, at: (Range<usize>, &str), help: &str) {
        self.add(Diagnostic::warning(code, message, help), at);
    }

    fn add(&mut self, finding: Diagnostic, (span, label): (Range<usize>, &str)) {
        self.findings.push(finding.at(Place { source: Arc::clone(&self.source), span }, label));
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// What keeps the rest from being looked at.
    fn whole(&mut self) -> Result<(), Box<Diagnostic>> {
        let source = Arc::clone(&self.source);
        let markup = Markup::of(&source)?;
        if let Some(span) = &markup.doctype {
            let help = "remove it; `postseal svg fix` does";
            self.error(
                "svg-doctype",
                "the file has a document type declaration",
                (span.clone(), "is not allowed"),
                help,
            );
        }
        let document = markup.parse(&source)?;
        if source.text.len() > LARGEST_LOGO {
            let message = format!("the file has {} octets, and receivers take {LARGEST_LOGO}", source.text.len());
            let help = "draw the logo with fewer points and digits";
            self.error("svg-large", message, (0..0, ""), help);
        }
        self.declaration();
        let root = document.root_element();
        if svg_name(root) != Some("svg") {
            let message =
                format!("the outermost element is `{}`, not `svg` of SVG's namespace", shown(written_name(root)));
            let help = format!("begin the drawing with <svg xmlns=\"{SVG}\" version=\"1.2\" baseProfile=\"tiny-ps\">");
            self.error("svg-root", message, (name_span(root), "not svg"), help);
            return Ok(());
        }
        let names = self.names(&document);
        self.elements(&document, &names);
        self.root(root);
        self.title(root);
        self.uses(&document, &names);
        Ok(())
    }

    /// The XML declaration, which the parser takes on trust.
    fn declaration(&mut self) {
        let source = Arc::clone(&self.source);
        let start = source.text.len() - source.text.trim_start_matches('\u{feff}').len();
        let Some(rest) = source.text.get(start..).and_then(|text| text.strip_prefix("<?xml")) else { return };
        let declaration = rest.split_once("?>").map_or(rest, |(declaration, _)| declaration);
        let value = |name: &str| {
            let (_, behind) = declaration.split_once(name)?;
            let behind = behind.trim_start().strip_prefix('=')?.trim_start();
            let quote = behind.chars().next().filter(|c| ['"', '\''].contains(c))?;
            behind.get(1..)?.split(quote).next()
        };
        let is_fine = value("version") == Some("1.0")
            && value("encoding").is_none_or(|encoding| encoding.eq_ignore_ascii_case("utf-8"));
        if !is_fine {
            let help = "write <?xml version=\"1.0\" encoding=\"UTF-8\"?>, or leave it out, which means the same";
            let span = start..start + 5 + declaration.len() + 2;
            self.error("svg-encoding", "the XML declaration does not say XML 1.0 in UTF-8", (span, "here"), help);
        }
    }

    /// Gathers what elements are called by; each name may be there once.
    fn names<'a, 'd>(&mut self, document: &'a Document<'d>) -> Names<'a, 'd> {
        let mut names = Names::new();
        for node in document.descendants().filter(|node| svg_name(*node).is_some()) {
            for attribute in node.attributes() {
                if !attribute_name(&attribute).is_some_and(|name| name == "id" || name == "xml:id") {
                    continue;
                }
                if names.insert(attribute.value(), node).is_some() {
                    let message = format!("there are two elements of the name `{}`", shown(attribute.value()));
                    self.error("svg-value", message, (attribute.range_value(), "the second"), "rename one of them");
                }
            }
        }
        names
    }

    fn elements<'a>(&mut self, document: &'a Document<'_>, names: &Names<'a, '_>) {
        let mut left: Vec<Node<'_, '_>> = document.root().children().collect();
        left.reverse();
        while let Some(node) = left.pop() {
            if self.findings.len() > 4 * MOST {
                return;
            }
            if node.is_pi() {
                let message = "the file has a processing instruction";
                let help = "remove it: a style sheet would be fetched, and nothing else is of use to a receiver";
                self.error("svg-reference", message, (node.range(), "is not allowed"), help);
            } else if node.is_element()
                && let Some(rule) = self.element(node)
            {
                for attribute in node.attributes() {
                    self.attribute(node, rule, &attribute, names);
                }
                self.texts(node, rule);
                let from = left.len();
                left.extend(node.children());
                if let Some(new) = left.get_mut(from..) {
                    new.reverse();
                }
            }
        }
    }

    /// Judges an element by its name and where it stands; returns its rule if the profile has one.
    fn element(&mut self, node: Node<'_, '_>) -> Option<&'static Element> {
        let written = shown(written_name(node));
        let span = name_span(node);
        let Some(name) = svg_name(node) else {
            let help = "remove it with what is in it; `postseal svg fix` does";
            let message = format!("`{written}` is no element of SVG");
            self.error("svg-element", message, (span, "of another namespace"), help);
            return None;
        };
        let Some(rule) = Element::named(name) else {
            let message = format!("the profile has no element `{written}`");
            self.error("svg-element", message, (span, "is not allowed"), element_help(name));
            return None;
        };
        let parent = node.parent_element();
        let fits = match parent {
            None => name == "svg",
            Some(parent) => svg_name(parent).and_then(Element::named).is_some_and(|rule| rule.may_hold(name)),
        };
        if !fits {
            let place = parent.map(written_name).unwrap_or_default();
            let message = format!("`{written}` may not stand in `{}`", shown(place));
            let help = match name {
                "title" | "desc" => "remove it: only the whole drawing has one; `postseal svg fix` does",
                "svg" => "move what is in it to where it stands, as `g`",
                _ => "move it, or remove it",
            };
            self.error("svg-element", message, (span, "is not allowed here"), help);
            // An inner `svg` would be judged by the rules of the outermost.
            return (name != "svg").then_some(rule);
        }
        if name == "text" || name == "textArea" {
            let help = "turn it into paths: in Inkscape, Path > Object to Path";
            self.warning("svg-text", "the logo has text, which looks different with other fonts", (span, "text"), help);
        }
        Some(rule)
    }

    fn attribute(&mut self, node: Node<'_, '_>, rule: &Element, attribute: &Attribute<'_, '_>, names: &Names<'_, '_>) {
        let text = node.document().input_text();
        let written = shown(text.get(attribute.range_qname()).unwrap_or_default());
        let name = attribute_name(attribute).filter(|name| rule.may_have(name));
        let Some(name) = name else {
            let is_link = attribute.namespace() == Some(XLINK) && attribute.name() == "href";
            let help = match attribute.namespace() {
                Some(XLINK) if is_link && rule.name == "use" => {
                    "write `href`, without a prefix; `postseal svg fix` does"
                }
                Some(_) if !is_link => "remove it; `postseal svg fix` does",
                _ => attribute_help(attribute.name()),
            };
            let message = format!("the profile has no attribute `{written}` for `{}`", rule.name);
            self.error("svg-attribute", message, (attribute.range_qname(), "is not allowed"), help);
            return;
        };
        let value = attribute.value();
        if let Some((problem, help)) = unfit(&name, value) {
            let message = format!("`{}` is no value of `{name}`: {problem}", shown(value));
            self.error("svg-value", message, (attribute.range_value(), "is not allowed"), help);
        } else if let Some((message, help)) = reach(rule, &name, value, names) {
            self.error("svg-reference", message, (attribute.range_value(), "is not allowed"), help);
        } else if name == "href" {
            let message = "some validators and renderers read only `xlink:href`, which the schema forbids";
            let help = "draw again, in its place, what `use` repeats";
            self.warning("svg-reference", message, (attribute.range(), "not read everywhere"), help);
        }
    }

    /// Text in an element that shows none.
    fn texts(&mut self, node: Node<'_, '_>, rule: &Element) {
        let is_blank = |text: &str| text.chars().all(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
        if rule.text {
            return;
        }
        if let Some(text) = node.children().find(|child| child.is_text() && !is_blank(child.text().unwrap_or_default()))
        {
            let span = text.range();
            let message = format!("`{}` may hold no text", rule.name);
            self.error("svg-text", message, (span, "text"), "remove it: it is not shown");
        }
    }

    fn root(&mut self, root: Node<'_, '_>) {
        for (name, value) in [("version", "1.2"), ("baseProfile", "tiny-ps")] {
            // Another value is told of with the other values.
            if own_node(root, name).is_none() {
                let message = format!("`svg` has no `{name}`");
                let help = format!("write {name}=\"{value}\"; `postseal svg fix` does");
                self.error("svg-root", message, (name_span(root), "needs it"), help);
            }
        }
        let Some(view) = own_node(root, "viewBox") else {
            let help = "write one such as viewBox=\"0 0 512 512\", with the drawing's width and height";
            self.error("svg-viewbox", "`svg` has no `viewBox`", (name_span(root), "needs it"), help);
            return;
        };
        let size = value::numbers(view.value()).and_then(|numbers| match numbers.as_slice() {
            [_, _, width, height] if *width > 0.0 && *height > 0.0 => Some((*width, *height)),
            _ => None,
        });
        let Some((width, height)) = size else {
            let message = format!("`{}` is no frame", shown(view.value()));
            let help = "write left, top, width and height, such as viewBox=\"0 0 512 512\"";
            self.error("svg-viewbox", message, (view.range_value(), "four numbers"), help);
            return;
        };
        if !is_square(width, height) {
            let help = "make the frame a square with the logo in its middle; `postseal svg fix --square` does";
            let message = format!("the logo is {width} by {height}, and must be a square");
            self.error("svg-viewbox", message, (view.range_value(), "no square"), help);
        }
        let pixels = |name| own(root, name).and_then(value::pixels);
        if let (Some(width), Some(height), Some(place)) = (pixels("width"), pixels("height"), own_node(root, "width"))
            && !is_square(width, height)
        {
            let message = format!("`width` and `height` say {width} by {height}, and the logo must be a square");
            self.error("svg-viewbox", message, (place.range(), "no square"), "remove both: `viewBox` is enough");
        }
    }

    fn title(&mut self, root: Node<'_, '_>) {
        let help = "write <title>NAME</title>, with the name of the brand, first of all in `svg`";
        let mut title = None;
        let mut drawn = false;
        for node in root.children().filter(Node::is_element) {
            match svg_name(node) {
                Some("title") if title.is_some() => {
                    self.error("svg-title", "there is a second title", (name_span(node), "the second"), "remove it");
                }
                Some("title") => {
                    title = Some(node);
                    if drawn {
                        let message = "the title stands behind what is drawn";
                        self.error("svg-title", message, (name_span(node), "must stand first"), help);
                    }
                }
                Some(name) => drawn |= rules::is_graphic(name),
                None => {}
            }
        }
        let Some(node) = title else {
            self.error("svg-title", "the drawing has no title", (name_span(root), "needs one"), help);
            return;
        };
        let text: String = node.children().filter_map(|child| child.text().filter(|_| child.is_text())).collect();
        let text = text.trim();
        if text.is_empty() {
            self.error("svg-title", "the title is empty", (name_span(node), "empty"), help);
        } else if text.chars().count() > 64 {
            let message = "the title has more than 64 characters";
            self.warning("svg-title", message, (node.range(), "long"), "write the name of the brand");
        } else if EMPTY_WORDS.contains(&text.to_lowercase().as_str()) {
            let message = format!("the title `{}` tells nothing", shown(text));
            self.warning("svg-title", message, (node.range(), "says nothing"), "write the name of the brand");
        }
    }

    /// What `use` repeats must end, and be little.
    fn uses<'a, 'd>(&mut self, document: &'a Document<'d>, names: &Names<'a, 'd>) {
        let mut weights = Weights { names, known: HashMap::new() };
        let users = document.descendants().filter(|node| svg_name(*node) == Some("use"));
        for user in users.take(DRAWN) {
            if weights.of(user, 0).is_none() {
                let message = "`use` leads to itself, or repeats more than 10,000 elements";
                self.error(
                    "svg-reference",
                    message,
                    (name_span(user), "has no end"),
                    "draw what it shows in its place",
                );
                return;
            }
        }
        if weights.of(document.root_element(), 0).is_none()
            && !self.findings.iter().any(|found| found.code == "svg-reference")
        {
            let message = "`use` repeats more than 10,000 elements in all";
            self.error("svg-reference", message, (name_span(document.root_element()), "here"), "repeat fewer");
        }
    }
}

/// How many elements are drawn for each.
struct Weights<'n, 'a, 'd> {
    names: &'n Names<'a, 'd>,
    /// None while it is counted, or if it is too much.
    known: HashMap<NodeId, Option<usize>>,
}

impl<'a, 'd> Weights<'_, 'a, 'd> {
    /// Returns it unless it is too much, as for what leads to itself.
    fn of(&mut self, node: Node<'a, 'd>, depth: usize) -> Option<usize> {
        if let Some(known) = self.known.get(&node.id()) {
            return *known;
        }
        self.known.insert(node.id(), None);
        // Elements are nested 100 deep at most, so that this is about `use`.
        if depth > 2 * DEPTH + 100 {
            return None;
        }
        let mut weight = 1_usize;
        for child in node.children().filter(Node::is_element) {
            weight = weight.checked_add(self.of(child, depth + 1)?)?;
        }
        if svg_name(node) == Some("use") {
            let link = own(node, "href").or_else(|| node.attribute((XLINK, "href")));
            let target = link.and_then(|link| link.strip_prefix('#')).and_then(|name| self.names.get(name).copied());
            if let Some(target) = target {
                weight = weight.checked_add(self.of(target, depth + 1)?)?;
            }
        }
        let weight = Some(weight).filter(|weight| *weight <= DRAWN);
        self.known.insert(node.id(), weight);
        weight
    }
}

/// Tells whether two sides are the same but for what comes of reckoning.
pub(super) fn is_square(width: f64, height: f64) -> bool {
    (width - height).abs() <= width.abs() * 1e-9
}

/// Returns why a value is none of an attribute's, and how to mend it.
fn unfit(name: &str, value: &str) -> Option<(&'static str, String)> {
    if let Some(words) = rules::words(name) {
        if words.contains(&value) {
            return None;
        }
        let help = match did_you_mean(value, words.iter().copied()) {
            Some(word) => format!("write {name}=\"{word}\""),
            None if words.len() == 1 => format!("write {name}=\"{}\", or remove it", words.concat()),
            None => format!("write one of: {}", words.join(", ")),
        };
        return Some(("the profile lists others", help));
    }
    let plain = "write letters, digits, `.`, `_` and `-`, and a letter first";
    match name {
        "id" | "xml:id" if !value::is_name(value) => Some(("it is no name", plain.to_owned())),
        "class" if !value::is_tokens(value) => {
            Some(("it is no list of names", "remove it: it has no use here".to_owned()))
        }
        "xml:lang" if !value.is_empty() && !value::is_language(value) => {
            Some(("it is no language", "write one such as en or de-CH".to_owned()))
        }
        "width" | "height" if value.contains('%') => {
            Some(("it depends on the window", "remove it: `viewBox` is enough; `postseal svg fix` does".to_owned()))
        }
        _ => None,
    }
}

/// Returns what is wrong with where a value leads.
fn reach(rule: &Element, name: &str, value: &str, names: &Names<'_, '_>) -> Option<(String, &'static str)> {
    if name == "xml:base" {
        return Some(("`xml:base` would make other files a part of the logo".to_owned(), "remove it"));
    }
    if name == "href" {
        let target = value.strip_prefix('#').filter(|target| names.contains_key(target));
        return target.is_none().then(|| {
            let message = format!("`{}` is no element of the drawing", shown(value));
            (message, "refer to one by `#` and its id; nothing outside of the file is fetched")
        });
    }
    match value::reference(value) {
        Reference::None => None,
        Reference::Local(target) => {
            let paints = ["linearGradient", "radialGradient", "solidColor"];
            let is_paint =
                names.get(target).and_then(|node| svg_name(*node)).is_some_and(|name| paints.contains(&name));
            let takes = name == "fill" || name == "stroke";
            (!takes || !is_paint).then(|| {
                let message =
                    format!("`{}` is no gradient or colour for the `{name}` of `{}`", shown(target), rule.name);
                (message, "name one of the drawing's gradients, or write a colour such as #0067b9")
            })
        }
        Reference::Foreign => Some((
            format!("`{}` refers to something outside of the logo, or may be read so", shown(value)),
            "write a colour such as #0067b9, or url(#ID) with the id of a gradient",
        )),
    }
}

pub(super) fn element_help(name: &str) -> &'static str {
    match name {
        "style" => "write its properties as attributes of the elements; `postseal svg fix` does",
        "image" | "feImage" => "draw it with paths: a logo holds no raster image (in Inkscape, Path > Trace Bitmap)",
        "script" | "handler" | "listener" => "remove it: a logo runs nothing",
        "tspan" | "tbreak" | "textPath" | "font" => "turn the text into paths: in Inkscape, Path > Object to Path",
        "clipPath" | "mask" => "cut the shapes themselves: in Inkscape, Path > Intersection",
        "filter" | "pattern" | "marker" => "draw it with paths and gradients",
        "symbol" => "write `g` within `defs`",
        "a" => "remove the link, and keep what is in it; `postseal svg fix` does",
        "switch" | "foreignObject" => "keep only what is to be seen, as `g`",
        "animate" | "animateColor" | "animateMotion" | "animateTransform" | "animation" | "set" | "discard" => {
            "remove it: a logo does not move"
        }
        _ => "remove it",
    }
}

pub(super) fn attribute_help(name: &str) -> &'static str {
    match name {
        "style" => "write its properties as attributes; `postseal svg fix` does",
        "opacity" => "write `fill-opacity` and `stroke-opacity`",
        "clip-path" | "mask" => "cut the shapes themselves: in Inkscape, Path > Intersection",
        "filter" => "draw it with paths and gradients",
        "href" => "give the gradient its own stops; `postseal svg fix` does",
        "gradientTransform" | "fx" | "fy" | "spreadMethod" => "draw the gradient by its coordinates alone",
        "display" | "visibility" => "remove what is hidden, and the attribute from the rest",
        name if name.starts_with("on") => "remove it: a logo runs nothing",
        _ => "remove it; `postseal svg fix` does if the picture stays the same",
    }
}
