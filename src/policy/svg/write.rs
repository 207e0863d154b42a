//! A tree of elements, and its text. Whatever stands in a tree, the text is read back as it.

/// An element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Out {
    pub(super) name: String,
    pub(super) attributes: Vec<(String, String)>,
    /// What is in it; elements whose text counts have no children.
    pub(super) children: Vec<Out>,
    pub(super) text: String,
}

impl Out {
    /// Returns the text of a file.
    pub(super) fn file(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0);
        out
    }

    fn write(&self, out: &mut String, depth: usize) {
        let indent = "  ".repeat(depth);
        out.push_str(&indent);
        out.push('<');
        out.push_str(&self.name);
        for (name, value) in &self.attributes {
            out.push(' ');
            out.push_str(name);
            out.push_str("=\"");
            out.push_str(&quoted(value));
            out.push('"');
        }
        if self.children.is_empty() && self.text.is_empty() {
            out.push_str("/>\n");
            return;
        }
        out.push('>');
        if self.children.is_empty() {
            out.push_str(&quoted(&self.text));
        } else {
            out.push('\n');
            for child in &self.children {
                child.write(out, depth + 1);
            }
            out.push_str(&indent);
        }
        out.push_str("</");
        out.push_str(&self.name);
        out.push_str(">\n");
    }
}

/// Quotes a text for a value or for what is between tags (XML 1.0 §2.4, §3.3.3). What XML has no way to write is left out.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push_str(&format!("&#{};", u32::from(c))),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back(value in "\\PC{0,40}|[\t\n\r<>&\"' a]{0,20}", text in "\\PC{0,40}|[\t\n\r<>&\"' \\]a]{0,20}") {
            let legal = |text: &str| text.replace(['\u{fffe}', '\u{ffff}'], "");
            let (value, text) = (legal(&value), legal(&text));
            let out = Out { name: "a".to_owned(), attributes: vec![("b".to_owned(), value.clone())], text: text.clone(), ..Out::default() };
            let file = out.file();
            let read = roxmltree::Document::parse(&file).unwrap();
            proptest::prop_assert_eq!(read.root_element().attribute("b"), Some(value.as_str()));
            proptest::prop_assert_eq!(read.root_element().text().unwrap_or_default(), text);
        }
    }
}
