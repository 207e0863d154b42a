//! As much DER (X.690) as a PKCS#12 file needs, written inside out: each function returns one whole element.

/// Tags, class and form included.
pub(super) const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
const NULL: u8 = 0x05;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BMP_STRING: u8 = 0x1e;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// Returns one element with the contents, which are joined.
pub(super) fn element(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let length: usize = contents.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 10);
    out.push(tag);
    let octets = length.to_be_bytes();
    let significant = octets.iter().position(|octet| *octet != 0).map_or(&[][..], |at| octets.split_at(at).1);
    match significant {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or_default());
            out.extend_from_slice(long);
        }
    }
    for part in contents {
        out.extend_from_slice(part);
    }
    out
}

/// A SEQUENCE of whole elements.
pub(super) fn sequence(elements: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, elements)
}

/// A SET OF whole elements, which DER sorts (X.690 §11.6).
pub(super) fn set(elements: &[&[u8]]) -> Vec<u8> {
    let mut sorted = elements.to_vec();
    sorted.sort_unstable();
    element(SET, &sorted)
}

/// An OCTET STRING.
pub(super) fn octets(content: &[u8]) -> Vec<u8> {
    element(OCTET_STRING, &[content])
}

/// A BIT STRING of whole octets.
pub(super) fn bits(content: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], content])
}

/// NULL.
pub(super) fn null() -> Vec<u8> {
    element(NULL, &[])
}

/// A non-negative INTEGER, in the fewest octets.
pub(super) fn integer(value: u32) -> Vec<u8> {
    let octets = value.to_be_bytes();
    let at = octets.iter().position(|octet| *octet != 0).unwrap_or(3);
    let digits = octets.split_at(at).1;
    // A first bit that is set would make it negative.
    let sign: &[u8] = if digits.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
    element(INTEGER, &[sign, digits])
}

/// An OBJECT IDENTIFIER from its encoded content.
pub(super) fn object_identifier(content: &[u8]) -> Vec<u8> {
    element(OBJECT_IDENTIFIER, &[content])
}

/// A constructed, explicitly tagged `[0]`.
pub(super) fn explicit0(content: &[u8]) -> Vec<u8> {
    element(0xa0, &[content])
}

/// A BMPString: two octets a character.
pub(super) fn bmp_string(text: &str) -> Vec<u8> {
    let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    element(BMP_STRING, &[&units])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_fewest_octets() {
        for (length, head) in [
            (0, vec![4, 0]),
            (127, vec![4, 127]),
            (128, vec![4, 0x81, 128]),
            (255, vec![4, 0x81, 255]),
            (256, vec![4, 0x82, 1, 0]),
            (65_536, vec![4, 0x83, 1, 0, 0]),
        ] {
            let element = octets(&vec![7; length]);
            assert!(element.starts_with(&head) && element.len() == head.len() + length, "{length}");
        }
    }

    #[test]
    fn integers_stay_positive() {
        assert_eq!(integer(0), [2, 1, 0]);
        assert_eq!(integer(127), [2, 1, 127]);
        assert_eq!(integer(128), [2, 2, 0, 128]);
        assert_eq!(integer(10_000), [2, 2, 0x27, 0x10]);
    }

    #[test]
    fn sets_are_sorted() {
        assert_eq!(set(&[&integer(2), &integer(1)]), [0x31, 6, 2, 1, 1, 2, 1, 2]);
    }
}
