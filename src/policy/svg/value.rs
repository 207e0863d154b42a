//! Values of attributes: names, languages, numbers, and what refers to something else.

/// Tells whether a name is one that every validator takes for an NCName: those of XML 1.0 in the scripts that are most used.
pub(super) fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c == '_' || is_letter(c))
        && chars.all(|c| matches!(c, '_' | '-' | '.' | '0'..='9') || is_letter(c))
}

/// Letters as the fourth edition of XML 1.0 lists them, which libxml2 goes by.
fn is_letter(c: char) -> bool {
    matches!(c,
        'A'..='Z' | 'a'..='z' | 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ı' | 'Ĵ'..='ľ' | 'Ł'..='ň' | 'Ŋ'..='ž'
        | 'Ά' | 'Έ'..='Ί' | 'Ό' | 'Ύ'..='Ρ' | 'Σ'..='ώ' | 'Ё'..='Ќ' | 'Ў'..='я' | 'ё'..='ќ' | 'ў'..='ҁ'
        | 'ぁ'..='ゔ' | 'ァ'..='ヺ' | '一'..='龥' | '가'..='힣')
}

/// Tells whether a text is a list of name tokens (XML 1.0, NMTOKENS).
pub(super) fn is_tokens(text: &str) -> bool {
    let is_token = |token: &str| token.chars().all(|c| matches!(c, '_' | '-' | '.' | ':' | '0'..='9') || is_letter(c));
    text.split_ascii_whitespace().next().is_some() && text.split_ascii_whitespace().all(is_token)
}

/// Tells whether a text has the form of a language tag (XML Schema, `language`).
pub(super) fn is_language(text: &str) -> bool {
    let mut parts = text.split('-');
    let fits = |part: &str| (1..=8).contains(&part.len());
    parts.next().is_some_and(|first| fits(first) && first.bytes().all(|byte| byte.is_ascii_alphabetic()))
        && parts.all(|part| fits(part) && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Returns a number, or one of pixels.
pub(super) fn pixels(text: &str) -> Option<f64> {
    number(text.trim().strip_suffix("px").unwrap_or(text.trim()))
}

/// Returns a number as SVG writes it (SVG Tiny 1.2 §4.1).
pub(super) fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    text.parse::<f64>().ok().filter(|value| plain && value.is_finite())
}

/// Returns the numbers of a list, apart by blanks and commas.
pub(super) fn numbers(text: &str) -> Option<Vec<f64>> {
    let parts = text.split(|c: char| c.is_ascii_whitespace() || c == ',').filter(|part| !part.is_empty());
    parts.map(number).collect()
}

/// What a value refers to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reference<'a> {
    /// Nothing.
    None,
    /// An element of the drawing.
    Local(&'a str),
    /// Something else, or in a form that only some would read so.
    Foreign,
}

/// Looks for `url(...)`, in whichever letters: it may stand first and once.
pub(super) fn reference(value: &str) -> Reference<'_> {
    let lower = value.to_ascii_lowercase();
    // A function's name can be written with escapes, and comments taken for blanks.
    if value.contains('\\') || lower.contains("/*") || lower.contains("image(") || lower.contains("src(") {
        return Reference::Foreign;
    }
    if !lower.contains("url(") {
        return Reference::None;
    }
    let local = value.trim_start().strip_prefix("url(").and_then(|rest| rest.split_once(')'));
    match local {
        Some((name, rest)) if !rest.to_ascii_lowercase().contains("url(") => {
            let name = name.trim();
            let unquoted = ['"', '\''].iter().find_map(|quote| name.strip_prefix(*quote)?.strip_suffix(*quote));
            match unquoted.unwrap_or(name).strip_prefix('#') {
                Some(id) if !id.is_empty() => Reference::Local(id),
                _ => Reference::Foreign,
            }
        }
        _ => Reference::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_reference_to_an_element_is_local() {
        assert_eq!(reference("url(#a)"), Reference::Local("a"));
        assert_eq!(reference(" url( '#a' ) none"), Reference::Local("a"));
        assert_eq!(reference("#ff0000"), Reference::None);
        for foreign in
            ["url(http://a.example/b#c)", "URL(#a)", "url(#a) url(b)", "u\\72l(b)", "url(#)", "none url(#a)", "url("]
        {
            assert_eq!(reference(foreign), Reference::Foreign, "{foreign}");
        }
    }

    #[test]
    fn names_numbers_and_languages_are_told_from_what_looks_like_them() {
        assert!(["a", "_1", "Größe", "a.b-c"].into_iter().all(is_name));
        assert!(!["", "1a", "a b", "a:b", "-a"].into_iter().any(is_name));
        assert_eq!((number("1e2"), number("inf"), number("1%"), number("")), (Some(100.0), None, None, None));
        assert!(is_language("de-CH") && !is_language("german language") && !is_language(""));
        assert!(is_tokens("a 1b") && !is_tokens("") && !is_tokens("a,b"));
    }
}
