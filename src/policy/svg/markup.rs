//! From octets to a tree: what is no text is refused, and so is what would cost time or memory beyond its size.

use std::ops::Range;
use std::sync::Arc;

use camino::Utf8PathBuf;
use roxmltree::{Document, Node, ParsingOptions};

use super::LARGEST_DRAWING;
use crate::diag::{Diagnostic, Place, Source};

/// The namespaces that have a meaning here.
pub(super) const SVG: &str = "http://www.w3.org/2000/svg";
pub(super) const XLINK: &str = "http://www.w3.org/1999/xlink";
pub(super) const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// How deep elements may be nested, how many attributes an element may have, and how many namespaces may be declared.
const DEPTH: usize = 100;
const ATTRIBUTES: usize = 200;
const NAMESPACES: usize = 200;

/// Takes the octets of a drawing for text.
///
/// # Errors
/// `svg-encoding` if they are compressed or not in UTF-8, `svg-large` if there are more than [`LARGEST_DRAWING`].
pub fn text(path: Utf8PathBuf, octets: &[u8]) -> Result<Arc<Source>, Box<Diagnostic>> {
    let refuse = |message: String, help: &str| Box::new(Diagnostic::error("svg-encoding", message, help));
    if octets.len() > LARGEST_DRAWING {
        return Err(Box::new(too_large(octets.len())));
    }
    if octets.starts_with(&[0x1f, 0x8b]) {
        let help = "decompress it: gunzip < logo.svgz > logo.svg; few receivers take a compressed logo";
        return Err(refuse(format!("`{path}` is compressed"), help));
    }
    if octets.starts_with(&[0xff, 0xfe])
        || octets.starts_with(&[0xfe, 0xff])
        || octets.iter().take(4).any(|octet| *octet == 0)
    {
        let help = "save it in UTF-8, or: iconv -f UTF-16 -t UTF-8 logo.svg";
        return Err(refuse(format!("`{path}` is in UTF-16, or in no text at all"), help));
    }
    String::from_utf8(octets.to_vec()).map(|text| Arc::new(Source { path: path.clone(), text })).map_err(|wrong| {
        // Up to the first bad octet, the text that is shown has the same octets.
        let start = wrong.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(wrong.as_bytes()).into_owned();
        let message = format!("`{path}` is not in UTF-8");
        let place = Place { source: Arc::new(Source { path, text }), span: start..start };
        Box::new(Diagnostic::error("svg-encoding", message, "save the drawing in UTF-8").at(place, "here"))
    })
}

fn too_large(octets: usize) -> Diagnostic {
    let message = format!("the drawing has {octets} octets, and more than {LARGEST_DRAWING} are not looked at");
    Diagnostic::error("svg-large", message, "draw it with fewer points, and without raster images")
}

/// A drawing's text, fit to be parsed.
#[derive(Debug)]
pub(super) struct Markup {
    /// The text, with a document type declaration blanked out, so that every place stays where it is.
    text: String,
    /// Where that stood.
    pub(super) doctype: Option<Range<usize>>,
}

impl Markup {
    /// Looks at the text as a whole.
    ///
    /// # Errors
    /// `svg-large`, `svg-doctype` for declarations of entities, or `svg-xml` for what is nested or repeated beyond all measure.
    pub(super) fn of(source: &Arc<Source>) -> Result<Self, Box<Diagnostic>> {
        let text = &source.text;
        if text.len() > LARGEST_DRAWING {
            return Err(Box::new(too_large(text.len())));
        }
        let survey = Survey::of(text);
        let at = |span: Range<usize>| Place { source: Arc::clone(source), span };
        if let Some((span, what)) = survey.excess {
            let help = "no editor writes such a file; draw the logo anew";
            return Err(Box::new(Diagnostic::error("svg-xml", what, help).at(at(span), "here")));
        }
        if survey.has_subset
            && let Some(span) = survey.doctype
        {
            let message = "the document type declaration declares entities or attributes";
            let help = "save the drawing as plain SVG; in Illustrator, without the option to keep editing capabilities";
            return Err(Box::new(Diagnostic::error("svg-doctype", message, help).at(at(span), "is never read")));
        }
        let mut text = text.clone();
        if let Some(span) = &survey.doctype {
            let length = span.len();
            let blank: String = text
                .get(span.clone())
                .unwrap_or_default()
                .bytes()
                .map(|octet| if octet == b'\n' { '\n' } else { ' ' })
                .collect();
            debug_assert_eq!(blank.len(), length);
            text.replace_range(span.clone(), &blank);
        }
        Ok(Self { text, doctype: survey.doctype })
    }

    /// Parses the text; a document type declaration is refused by the parser too.
    ///
    /// # Errors
    /// `svg-xml` if it is not well-formed.
    pub(super) fn parse(&self, source: &Arc<Source>) -> Result<Document<'_>, Box<Diagnostic>> {
        let options = ParsingOptions { allow_dtd: false, ..ParsingOptions::default() };
        Document::parse_with_options(&self.text, options).map_err(|error| {
            let position = error.pos();
            let start = offset(&self.text, position.row as usize, position.col as usize);
            let said = error.to_string();
            // The place is told apart.
            let said = said.strip_suffix(&format!(" at {position}")).unwrap_or(&said).to_owned();
            let place = Place { source: Arc::clone(source), span: start..start };
            let help = "save the drawing anew, or mend it at this place";
            Box::new(
                Diagnostic::error("svg-xml", format!("the file is no well-formed XML: {said}"), help).at(place, "here"),
            )
        })
    }
}

/// Returns the byte that a row and a column, in characters from 1, stand for.
fn offset(text: &str, row: usize, column: usize) -> usize {
    let line: usize = text.split_inclusive('\n').take(row.saturating_sub(1)).map(str::len).sum();
    let rest = text.get(line..).unwrap_or_default();
    line + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(offset, _)| offset)
}

/// What can be seen of a text without parsing it.
#[derive(Debug, Default)]
struct Survey {
    doctype: Option<Range<usize>>,
    has_subset: bool,
    excess: Option<(Range<usize>, &'static str)>,
}

impl Survey {
    fn of(text: &str) -> Self {
        let mut survey = Self::default();
        if text.matches("xmlns").count() > NAMESPACES {
            survey.excess = Some((0..0, "the file declares hundreds of namespaces"));
            return survey;
        }
        let (mut at, mut depth) = (0, 0_usize);
        while let Some(start) = text.get(at..).and_then(|rest| rest.find('<')).map(|found| at + found) {
            let rest = text.get(start..).unwrap_or_default();
            let behind = |end: &str| rest.find(end).map_or(text.len(), |found| start + found + end.len());
            at = if rest.starts_with("<!--") {
                behind("-->")
            } else if rest.starts_with("<![CDATA[") {
                behind("]]>")
            } else if rest.starts_with("<?") {
                behind("?>")
            } else if rest.starts_with("<!DOCTYPE") && survey.doctype.is_none() {
                let (end, has_subset) = doctype(rest);
                survey.has_subset = has_subset;
                survey.doctype = Some(start..start + end);
                start + end
            } else if rest.starts_with("</") {
                depth = depth.saturating_sub(1);
                start + 2
            } else {
                let tag = Tag::of(rest);
                depth += usize::from(!tag.is_empty);
                let excess = if depth > DEPTH {
                    Some("elements are nested more than 100 deep")
                } else if tag.attributes > ATTRIBUTES {
                    Some("an element has more than 200 attributes")
                } else {
                    None
                };
                if let Some(what) = excess {
                    survey.excess = Some((start..start + 1, what));
                    return survey;
                }
                start + tag.length.max(1)
            };
        }
        survey
    }
}

/// Returns the length of a document type declaration, and whether it declares anything itself.
fn doctype(text: &str) -> (usize, bool) {
    let (mut quote, mut has_subset, mut is_open) = (None, false, false);
    for (at, octet) in text.bytes().enumerate() {
        match (quote, octet) {
            (Some(open), _) => quote = Some(open).filter(|open| *open != octet),
            (None, b'"' | b'\'') => quote = Some(octet),
            (None, b'[') => (has_subset, is_open) = (true, true),
            (None, b']') => is_open = false,
            (None, b'>') if !is_open => return (at + 1, has_subset),
            _ => {}
        }
    }
    (text.len(), has_subset)
}

struct Tag {
    length: usize,
    attributes: usize,
    /// Whether it is closed at once.
    is_empty: bool,
}

impl Tag {
    fn of(text: &str) -> Self {
        let (mut quote, mut attributes, mut before) = (None, 0, 0);
        for (at, octet) in text.bytes().enumerate() {
            match (quote, octet) {
                (Some(open), _) => quote = Some(open).filter(|open| *open != octet),
                (None, b'"' | b'\'') => quote = Some(octet),
                (None, b'=') => attributes += 1,
                (None, b'>') => return Self { length: at + 1, attributes, is_empty: before == b'/' },
                _ => {}
            }
            before = octet;
        }
        Self { length: text.len(), attributes, is_empty: false }
    }
}

/// Returns an attribute without a namespace. The parser's own way by a plain name would find one of any namespace.
pub(super) fn own_node<'a, 'd>(node: Node<'a, 'd>, name: &str) -> Option<roxmltree::Attribute<'a, 'd>> {
    node.attributes().find(|attribute| attribute.namespace().is_none() && attribute.name() == name)
}

/// Returns the value of an attribute without a namespace.
pub(super) fn own<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    own_node(node, name).map(|attribute| attribute.value())
}

/// Returns where an element's name stands in its start tag.
pub(super) fn name_span(node: Node<'_, '_>) -> Range<usize> {
    let start = node.range().start + 1;
    let rest = node.document().input_text().get(start..).unwrap_or_default();
    start..start + rest.find(|c: char| c.is_ascii_whitespace() || c == '/' || c == '>').unwrap_or(0)
}

/// Returns an element's name as the text has it, with its prefix.
pub(super) fn written_name<'a>(node: Node<'a, '_>) -> &'a str {
    node.document().input_text().get(name_span(node)).unwrap_or_default()
}

/// Returns an element's name if it is of the SVG namespace.
pub(super) fn svg_name<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    (node.is_element() && node.tag_name().namespace() == Some(SVG)).then(|| node.tag_name().name())
}

/// Returns an attribute's name as the profile has it, `xml:` for those of XML; none for those of other namespaces.
pub(super) fn attribute_name(attribute: &roxmltree::Attribute<'_, '_>) -> Option<String> {
    match attribute.namespace() {
        None => Some(attribute.name().to_owned()),
        Some(XML) => Some(format!("xml:{}", attribute.name())),
        Some(_) => None,
    }
}
