//! Makes of a drawing, as editors save it, a logo that conforms and looks the same; what cannot be made right is told.

mod gradient;
mod property;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use roxmltree::{Document, Node};

use self::property::Verdict;
use super::check::{check, is_square};
use super::css::{self, Rule};
use super::geometry::written;
use super::markup::{Markup, SVG, XLINK, attribute_name, name_span, own, own_node, svg_name, written_name};
use super::rules::{self, Element};
use super::value;
use super::write::Out;
use crate::diag::{Diagnostic, Place, Severity, Source};
use crate::names::shown;

/// What is wanted of a logo beyond that it conforms.
#[derive(Clone, Copy, Debug)]
pub struct Wishes<'a> {
    /// Its title; none keeps what it has.
    pub title: Option<&'a str>,
    /// The title of one that has none.
    pub fallback: &'a str,
    /// Whether a frame that is no square is made one, with the drawing in its middle.
    pub square: bool,
}

/// A logo that conforms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Its text.
    pub text: String,
    /// What was changed, sorted.
    pub changes: BTreeSet<String>,
}

/// Makes a drawing conform.
///
/// # Errors
/// What could not be made right without changing the picture.
pub fn fix(source: &Arc<Source>, wishes: Wishes<'_>) -> Result<Fixed, Vec<Diagnostic>> {
    let stopped = |finding: Box<Diagnostic>| vec![*finding];
    let markup = Markup::of(source).map_err(stopped)?;
    let document = markup.parse(source).map_err(stopped)?;
    let root = document.root_element();
    if svg_name(root) != Some("svg") {
        // `check` says it best.
        return Err(check(source));
    }
    let mut fixer = Fixer::new(source, &document);
    if markup.doctype.is_some() {
        fixer.changed("removed the document type declaration");
    }
    let out = fixer.root(root, wishes);
    let Fixer { refused, changes, .. } = fixer;
    if !refused.is_empty() {
        return Err(refused);
    }
    let text = out.file();
    let made = Arc::new(Source { path: source.path.clone(), text });
    // Places in what was made would mislead who has only the drawing.
    let rest: Vec<Diagnostic> = check(&made)
        .into_iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| Diagnostic { place: None, label: String::new(), ..finding })
        .collect();
    if rest.is_empty() { Ok(Fixed { text: made.text.clone(), changes }) } else { Err(rest) }
}

struct Fixer<'a, 'd> {
    source: Arc<Source>,
    named: HashMap<&'a str, Node<'a, 'd>>,
    /// How many stops gradients took from others.
    stops: usize,
    refused: Vec<Diagnostic>,
    changes: BTreeSet<String>,
    /// The style sheets' rules, weakest first.
    sheet: Vec<Rule>,
    /// Whatever stands behind a `#`, but where a gradient builds on another.
    referenced: HashSet<String>,
    has_text: bool,
    has_uses: bool,
    /// Left, top, width and height.
    frame: Option<[f64; 4]>,
}

/// What an element has from those around it.
#[derive(Clone, Debug)]
struct Around {
    fill: String,
    stroke: String,
    fill_opacity: f64,
    stroke_opacity: f64,
    /// Whether its coordinates are those of the whole drawing.
    is_plain: bool,
}

const ELEMENTS_WITHOUT_EFFECT: [&str; 12] = [
    "clipPath",
    "color-profile",
    "cursor",
    "filter",
    "marker",
    "mask",
    "metadata",
    "pattern",
    "style",
    "symbol",
    "title",
    "view",
];
const LEAVES: [&str; 7] = ["circle", "ellipse", "line", "path", "polygon", "polyline", "rect"];
const GRADIENTS: [&str; 2] = ["linearGradient", "radialGradient"];

impl<'a, 'd> Fixer<'a, 'd> {
    fn new(source: &Arc<Source>, document: &'a Document<'d>) -> Self {
        let has = |names: &[&str]| {
            document.descendants().any(|node| svg_name(node).is_some_and(|name| names.contains(&name)))
        };
        let mut fixer = Self {
            source: Arc::clone(source),
            named: HashMap::new(),
            stops: 0,
            refused: Vec::new(),
            changes: BTreeSet::new(),
            sheet: Vec::new(),
            referenced: HashSet::new(),
            has_text: has(&["text", "textArea"]),
            has_uses: has(&["use"]),
            frame: None,
        };
        for node in document.descendants() {
            if node.is_pi() {
                fixer.instruction(node);
            }
            if let Some(id) = own(node, "id") {
                fixer.named.entry(id).or_insert(node);
            }
            for attribute in node.attributes() {
                let builds_on =
                    attribute.name() == "href" && svg_name(node).is_some_and(|name| GRADIENTS.contains(&name));
                if !builds_on {
                    fixer.refer(attribute.value());
                }
            }
            if svg_name(node) == Some("style") {
                fixer.style_sheet(node);
            }
        }
        if fixer.sheet.len() > css::MOST_RULES {
            let help = "remove the rules that nothing in the drawing needs";
            fixer.refuse(0..0, "the style sheets have more than 500 rules", help);
            fixer.sheet.clear();
        }
        fixer.sheet.sort_by_key(Rule::weight);
        fixer
    }

    fn instruction(&mut self, node: Node<'_, '_>) {
        if node.pi().is_some_and(|pi| pi.target == "xml-stylesheet") {
            let help = "write what it says as attributes, and remove the instruction";
            self.refuse(node.range(), "the picture depends on a style sheet in another file", help);
        } else {
            self.changed("removed processing instructions");
        }
    }

    fn style_sheet(&mut self, node: Node<'_, '_>) {
        let text: String = node.descendants().filter(Node::is_text).filter_map(|text| text.text()).collect();
        self.refer(&text);
        let rules = css::sheet(&text).filter(|_| own(node, "media").is_none_or(|media| media == "all"));
        if let Some(rules) = rules {
            self.sheet.extend(rules);
            self.sheet.truncate(css::MOST_RULES + 1);
            self.changed("wrote style sheets as attributes");
        } else {
            let help = "write its properties as attributes: only rules for a class, an id or an element are understood";
            self.refuse(name_span(node), "the style sheet has more than plain rules", help);
        }
    }

    /// Remembers every name that a text refers to.
    fn refer(&mut self, text: &str) {
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
        for part in text.split('#').skip(1) {
            self.referenced.insert(part.chars().take_while(|c| is_part(*c)).collect());
        }
    }

    fn is_referenced(&self, node: Node<'_, '_>) -> bool {
        own(node, "id").is_some_and(|id| self.referenced.contains(id))
    }

    /// Finds an element by its id, the first of those that have it.
    fn target(&self, id: &str) -> Option<Node<'a, 'd>> {
        self.named.get(id).copied()
    }

    fn changed(&mut self, what: impl Into<String>) {
        // A drawing with thousands of kinds of things is none that somebody reads about.
        if self.changes.len() < 100 {
            self.changes.insert(what.into());
        }
    }

    fn refuse(&mut self, span: std::ops::Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        if self.refused.len() < 50 {
            let place = Place { source: Arc::clone(&self.source), span };
            self.refused.push(Diagnostic::error("svg-unfixable", message, help).at(place, "here"));
        }
    }

    fn root(&mut self, root: Node<'a, 'd>, wishes: Wishes<'_>) -> Out {
        let view = own(root, "viewBox").and_then(value::numbers);
        let side = |name| own(root, name).and_then(value::pixels);
        self.frame = match (view.as_deref(), side("width"), side("height")) {
            (Some([left, top, width, height]), ..) => Some([*left, *top, *width, *height]),
            (None, Some(width), Some(height)) => Some([0.0, 0.0, width, height]),
            _ => None,
        };
        let around = Around {
            fill: "black".to_owned(),
            stroke: "none".to_owned(),
            fill_opacity: 1.0,
            stroke_opacity: 1.0,
            is_plain: true,
        };
        let mut out = self.element(root, "svg", &around).unwrap_or_default();
        out.attributes.retain(|(name, _)| !["version", "baseProfile", "viewBox"].contains(&name.as_str()));
        self.squared(root, &mut out, wishes.square);
        for (name, value) in [("baseProfile", "tiny-ps"), ("version", "1.2"), ("xmlns", SVG)] {
            out.attributes.insert(0, (name.to_owned(), value.to_owned()));
            if name != "xmlns" && own(root, name) != Some(value) {
                self.changed(format!("wrote {name}=\"{value}\""));
            }
        }
        let title = self.title(root, wishes);
        out.children.insert(0, title);
        out
    }

    /// Sets the frame, and with it the size, which would contradict a frame that changes.
    fn squared(&mut self, root: Node<'_, '_>, out: &mut Out, square: bool) {
        let at = name_span(root);
        let Some([left, top, width, height]) = self.frame.filter(|[_, _, width, height]| *width > 0.0 && *height > 0.0)
        else {
            let help = "write viewBox=\"0 0 WIDTH HEIGHT\" with the size of the drawing";
            return self.refuse(at, "nothing says how large the drawing is", help);
        };
        let pixels = |name| own(root, name).and_then(value::pixels);
        let size = pixels("width").zip(pixels("height"));
        let sizes_differ = size.is_some_and(|(width, height)| !is_square(width, height));
        let mut frame = [left, top, width, height];
        let is_new = !is_square(width, height) || sizes_differ;
        if is_new {
            if !square {
                let (width, height) = size.filter(|_| sizes_differ).unwrap_or((width, height));
                let message = format!("the drawing is {width} by {height}, and a logo must be a square");
                let help = "say --square to put it into the middle of a square, or draw it so";
                return self.refuse(at, message, help);
            }
            let longer = width.max(height);
            frame = [left - (longer - width) / 2.0, top - (longer - height) / 2.0, longer, longer];
            out.attributes.retain(|(name, _)| name != "width" && name != "height");
            self.changed("made the frame a square");
        }
        let text = match own(root, "viewBox") {
            Some(text) if !is_new => text.to_owned(),
            _ => {
                self.changed("wrote viewBox");
                frame.map(written).join(" ")
            }
        };
        out.attributes.push(("viewBox".to_owned(), text));
        let has_percent =
            out.attributes.iter().any(|(name, value)| (name == "width" || name == "height") && value.contains('%'));
        if has_percent {
            out.attributes.retain(|(name, _)| name != "width" && name != "height");
            self.changed("removed width and height");
        }
    }

    fn title(&mut self, root: Node<'_, '_>, wishes: Wishes<'_>) -> Out {
        let found = root.children().filter(|node| svg_name(*node) == Some("title")).find_map(|node| {
            let text: String = node.descendants().filter(Node::is_text).filter_map(|text| text.text()).collect();
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            (!text.is_empty()).then_some(text)
        });
        if wishes.title.is_some() || found.is_none() {
            self.changed("wrote the title");
        }
        let text = wishes.title.map(str::to_owned).or(found).unwrap_or_else(|| wishes.fallback.to_owned());
        Out { name: "title".to_owned(), text, ..Out::default() }
    }

    /// Makes an element right that is kept, under the name that it gets.
    fn element(&mut self, node: Node<'a, 'd>, name: &'static str, around: &Around) -> Option<Out> {
        let rule = Element::named(name)?;
        let mut out = Out { name: name.to_owned(), ..Out::default() };
        let properties = self.properties(node);
        if properties.iter().any(|(name, value)| name == "display" && value == "none") && name != "svg" {
            return self.hidden(node);
        }
        let mut around = around.clone();
        around.inherit(&properties);
        around.is_plain &= own_node(node, "transform").is_none();
        self.own_attributes(node, rule, &mut out);
        let resolved = if GRADIENTS.contains(&name) { Some(self.gradient(node, &mut out)) } else { None };
        let mut writes = Vec::new();
        for (property, text) in properties {
            match self.verdict(node, rule, (&property, &text), &around) {
                Verdict::Keep(text) => out.attributes.push((property, text)),
                Verdict::Drop => self.changed(format!("removed `{property}`")),
                Verdict::Write(more) => {
                    self.changed(format!("wrote `{property}` in another way"));
                    writes.extend(more);
                }
                Verdict::Refuse(message, help) => self.refuse(property::span(node, &property), message, help),
            }
        }
        for (name, text) in writes {
            out.attributes.retain(|(known, _)| *known != name);
            out.attributes.push((name, text));
        }
        if rule.text {
            self.words(node, &mut out);
        } else if let Some(stops) = resolved {
            out.children = stops.into_iter().filter_map(|stop| self.child(stop, &around)).collect();
        } else {
            out.children = node.children().filter_map(|child| self.child(child, &around)).collect();
        }
        Some(out)
    }

    fn words(&mut self, node: Node<'_, '_>, out: &mut Out) {
        if let Some(inner) = node.children().find(Node::is_element) {
            let message = format!("`{}` in text cannot be kept", shown(written_name(inner)));
            self.refuse(name_span(inner), message, "turn the text into paths: in Inkscape, Path > Object to Path");
        }
        out.text = node.children().filter(Node::is_text).filter_map(|text| text.text()).collect();
    }

    /// What is hidden is left out, unless something shows a part of it elsewhere.
    fn hidden(&mut self, node: Node<'a, 'd>) -> Option<Out> {
        if node.descendants().any(|inner| self.is_referenced(inner)) {
            let help = "move what is used elsewhere into `defs`, and remove the rest";
            self.refuse(name_span(node), "a part of what is hidden is used elsewhere", help);
        } else {
            self.changed("removed what is hidden");
        }
        None
    }

    /// Makes right what stands in an element; none if nothing is to be kept.
    fn child(&mut self, node: Node<'a, 'd>, around: &Around) -> Option<Out> {
        if !node.is_element() {
            if node.is_comment() {
                self.changed("removed comments");
            }
            return None;
        }
        let Some(name) = svg_name(node) else {
            self.changed(format!("removed `{}`", shown(written_name(node))));
            return None;
        };
        let parent = node.parent_element().and_then(svg_name).unwrap_or_default();
        if GRADIENTS.contains(&name) && !self.is_referenced(node) {
            self.changed("removed gradients that nothing uses");
            return None;
        }
        let rule = Element::named(name).map(|rule| rule.name);
        match rule {
            Some("title" | "metadata" | "svg") | None => {}
            Some("desc") if parent != "svg" => {
                self.changed("removed `desc`");
                return None;
            }
            Some(name) => return self.element(node, name, around),
        }
        if name == "a" {
            self.changed("removed links");
            return self.element(node, "g", around);
        }
        // What is drawn by it is refused where it is referred to.
        let is_symbol = (name == "symbol" || name == "image") && self.is_referenced(node);
        if (ELEMENTS_WITHOUT_EFFECT.contains(&name) || rule == Some("metadata")) && !is_symbol {
            if name != "title" || parent != "svg" {
                self.changed(format!("removed `{name}`"));
            }
            return None;
        }
        let message = format!("`{}` cannot be made right without changing the picture", shown(written_name(node)));
        self.refuse(name_span(node), message, super::check::element_help(name));
        None
    }

    /// Keeps the attributes that are no properties.
    fn own_attributes(&mut self, node: Node<'a, 'd>, rule: &Element, out: &mut Out) {
        for attribute in node.attributes() {
            let written = node.document().input_text().get(attribute.range_qname()).unwrap_or_default();
            let name = attribute_name(&attribute);
            let name = if attribute.namespace() == Some(XLINK) && attribute.name() == "href" && rule.name == "use" {
                self.changed("wrote `xlink:href` as `href`");
                Some("href".to_owned())
            } else {
                name
            };
            let Some(name) = name.filter(|name| name != "style" && name != "class" && !property::is_property(name))
            else {
                if attribute.namespace().is_some() || attribute.name() == "class" {
                    self.changed(format!("removed `{}`", shown(written)));
                }
                continue;
            };
            if name == "href"
                && rule.name == "use"
                && own_node(node, "href").is_some()
                && attribute.namespace().is_some()
            {
                continue;
            }
            let value = attribute.value();
            let fits = rule.may_have(&name) && rules::words(&name).is_none_or(|words| words.contains(&value));
            let is_root_size = rule.name == "svg" && ["version", "baseProfile", "viewBox"].contains(&name.as_str());
            if (fits && self.is_kept(node, &name, value)) || is_root_size {
                out.attributes.push((name, value.to_owned()));
            } else if property::is_idle(node.tag_name().name(), &name, value) || (fits && name.ends_with("id")) {
                self.changed(format!("removed `{}`", shown(written)));
            } else if !(GRADIENTS.contains(&rule.name) && gradient::OWN.contains(&name.as_str())) {
                let message = format!("`{}` of `{}` cannot be left out", shown(written), rule.name);
                let help = "draw it without, and run this again";
                self.refuse(attribute.range(), message, help);
            }
        }
    }

    /// A name that is no name, or the second of its kind, is of use to nobody if nothing refers to it.
    fn is_kept(&self, node: Node<'_, '_>, name: &str, value: &str) -> bool {
        if name != "id" && name != "xml:id" {
            return true;
        }
        self.is_referenced(node) || (value::is_name(value) && self.target(value) == Some(node) && name == "id")
    }

    /// Returns the properties of an element, the strongest of each: attributes, then style sheets, then its own style.
    fn properties(&mut self, node: Node<'_, '_>) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = Vec::new();
        let mut set = |name: &str, value: &str| {
            found.retain(|(known, _)| known != name);
            found.push((name.to_owned(), value.to_owned()));
        };
        for attribute in node.attributes().filter(|attribute| attribute.namespace().is_none()) {
            if property::is_property(attribute.name()) {
                set(attribute.name(), attribute.value().trim());
            }
        }
        let (name, class) = (node.tag_name().name(), own(node, "class").unwrap_or_default());
        for rule in self.sheet.iter().filter(|rule| rule.is_about(name, class, own(node, "id"))) {
            for (name, value) in &rule.properties {
                set(name, value);
            }
        }
        if let Some(style) = own_node(node, "style") {
            if let Some(own) = css::properties(style.value()) {
                for (name, value) in &own {
                    set(name, value);
                }
                self.changed("wrote `style` as attributes");
            } else {
                let help = "write its properties as attributes";
                self.refuse(style.range_value(), "the style has more than plain properties", help);
            }
        }
        found
    }
}

impl Around {
    fn inherit(&mut self, properties: &[(String, String)]) {
        for (name, value) in properties.iter().filter(|(_, value)| value != "inherit") {
            match name.as_str() {
                "fill" => self.fill.clone_from(value),
                "stroke" => self.stroke.clone_from(value),
                "fill-opacity" => self.fill_opacity = property::share(value).unwrap_or(f64::NAN),
                "stroke-opacity" => self.stroke_opacity = property::share(value).unwrap_or(f64::NAN),
                _ => {}
            }
        }
    }
}
