//! Logos: the profile by cases of its own, and that a mended drawing looks as before.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::format_collect,
    missing_docs
)]
#![allow(clippy::disallowed_methods, reason = "a test reads its drawings")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use postseal::diag::{Diagnostic, Severity, Source};
use postseal::policy::svg::{self, Wishes};
use proptest::prelude::*;
use resvg::{tiny_skia, usvg};

fn source(text: &str) -> Arc<Source> {
    Arc::new(Source { path: "logo.svg".into(), text: text.to_owned() })
}

fn errors(text: &str) -> Vec<Diagnostic> {
    svg::check(&source(text)).into_iter().filter(|finding| finding.severity == Severity::Error).collect()
}

fn codes(text: &str) -> Vec<&'static str> {
    errors(text).iter().map(|finding| finding.code).collect()
}

const HEAD: &str = r#"<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 64 64"><title>Example</title>"#;

fn logo(inner: &str) -> String {
    format!("{HEAD}{inner}</svg>")
}

/// What stands in a logo behind its title, and the codes of the errors in it.
const CASES: &[(&str, &[&str])] = &[
    ("", &[]),
    ("<desc>A logo</desc><metadata>made by hand</metadata>", &[]),
    ("<g transform='scale(2)' role='img'><path id='a' d='M0 0h9v9z' fill='#123' fill-opacity='.5'/></g>", &[]),
    ("<defs><g id='a'/></defs><use href='#a' x='1'/>", &[]),
    ("<linearGradient id='a'><stop offset='0' stop-color='red'/></linearGradient><rect fill='url(#a) none'/>", &[]),
    ("<solidColor id='a' solid-color='#fff'/><circle r='2' stroke='url(#a)'/>", &[]),
    ("<rect xml:space='preserve' xml:lang='de-CH' class='a b' stroke-linecap='round' vector-effect='none'/>", &[]),
    ("<!-- a comment --><line x1='0' x2='1'/>", &[]),
    ("<title>Two</title>", &["svg-title"]),
    ("<g><title>Inner</title></g>", &["svg-element"]),
    ("<script/>", &["svg-element"]),
    ("<style>a{}</style>", &["svg-element"]),
    ("<image href='data:image/png;base64,AA=='/>", &["svg-element"]),
    ("<a href='#b'><g/></a>", &["svg-element"]),
    ("<defs><font/></defs>", &["svg-element"]),
    ("<text>a<tspan>b</tspan></text>", &["svg-element"]),
    ("<svg/>", &["svg-element"]),
    ("<x:y xmlns:x='urn:x'><z/></x:y>", &["svg-element"]),
    ("<stop/>", &["svg-element"]),
    ("<rect style='fill:red'/>", &["svg-attribute"]),
    ("<rect opacity='1'/>", &["svg-attribute"]),
    ("<rect onclick=''/>", &["svg-attribute"]),
    ("<rect data-a='' aria-label=''/>", &["svg-attribute", "svg-attribute"]),
    ("<rect xmlns:x='urn:x' x:y=''/>", &["svg-attribute"]),
    ("<defs><g id='a'/></defs><use xmlns:l='http://www.w3.org/1999/xlink' l:href='#a'/>", &["svg-attribute"]),
    ("<linearGradient gradientTransform='scale(2)'/>", &["svg-attribute"]),
    ("<metadata id='a'/>", &["svg-attribute"]),
    ("<title fill='red'>Two</title>", &["svg-title", "svg-attribute"]),
    ("<rect fill-rule='odd'/>", &["svg-value"]),
    ("<rect id='1a'/>", &["svg-value"]),
    ("<rect id='a'/><rect id='a'/>", &["svg-value"]),
    ("<rect width='50%'/>", &["svg-value"]),
    ("<path font-weight='700'/>", &["svg-value"]),
    ("<rect xml:base='http://a.example/'/>", &["svg-reference"]),
    ("<use href='http://a.example/b.svg#c'/>", &["svg-reference"]),
    ("<use href='#nowhere'/>", &["svg-reference"]),
    ("<use id='a' href='#a'/>", &["svg-reference"]),
    ("<rect fill='url(http://a.example/b#c)'/>", &["svg-reference"]),
    ("<rect fill='URL(//a.example)'/>", &["svg-reference"]),
    ("<rect fill='u\\72l(//a.example)'/>", &["svg-reference"]),
    ("<rect fill='url(#nowhere)'/>", &["svg-reference"]),
    ("<g id='a'/><rect fill='url(#a)'/>", &["svg-reference"]),
    ("<rect about='url(http://a.example/)'/>", &["svg-reference"]),
    ("<?xml-stylesheet href='a.css'?>", &["svg-reference"]),
    ("<g>text</g>", &["svg-text"]),
    ("<defs><![CDATA[text]]></defs>", &["svg-text"]),
    ("<g>", &["svg-xml"]),
    ("<rect x='1' x='2'/>", &["svg-xml"]),
    ("&nbsp;", &["svg-xml"]),
];

#[test]
fn each_case_of_the_profile_has_its_verdict() {
    for (inner, expected) in CASES {
        assert_eq!(codes(&logo(inner)), *expected, "{inner}");
    }
}

/// Whole files, and the codes of the errors in them.
const FILES: &[(&str, &[&str])] = &[
    ("", &["svg-xml"]),
    ("<html/>", &["svg-root"]),
    ("<svg version='1.2' baseProfile='tiny-ps' viewBox='0 0 1 1'><title>A</title></svg>", &["svg-root"]),
    ("<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 1 1'><title>A</title></svg>", &["svg-root", "svg-root"]),
    (
        "<svg xmlns='http://www.w3.org/2000/svg' version='1.1' baseProfile='tiny' viewBox='0 0 1 1'><title>A</title></svg>",
        &["svg-value", "svg-value"],
    ),
    (
        "<svg xmlns='http://www.w3.org/2000/svg' version='1.2' baseProfile='tiny-ps'><title>A</title></svg>",
        &["svg-viewbox"],
    ),
    (
        "<svg xmlns='http://www.w3.org/2000/svg' version='1.2' baseProfile='tiny-ps' viewBox='0 0 2 1'><title>A</title></svg>",
        &["svg-viewbox"],
    ),
    (
        "<svg xmlns='http://www.w3.org/2000/svg' version='1.2' baseProfile='tiny-ps' viewBox='0 0 1'><title>A</title></svg>",
        &["svg-viewbox"],
    ),
    (
        "<svg xmlns='http://www.w3.org/2000/svg' version='1.2' baseProfile='tiny-ps' viewBox='0 0 1 1' width='9' height='8'><title>A</title></svg>",
        &["svg-viewbox"],
    ),
    (
        "<svg xmlns='http://www.w3.org/2000/svg' version='1.2' baseProfile='tiny-ps' viewBox='0 0 1 1' width='100%'><title>A</title></svg>",
        &["svg-value"],
    ),
    (
        "<svg xmlns='http://www.w3.org/2000/svg' version='1.2' baseProfile='tiny-ps' viewBox='0 0 1 1' x='0' overflow='hidden'><title>A</title></svg>",
        &["svg-attribute", "svg-attribute"],
    ),
    ("<svg xmlns='http://www.w3.org/2000/svg' version='1.2' baseProfile='tiny-ps' viewBox='0 0 1 1'/>", &["svg-title"]),
    (
        "<svg xmlns='http://www.w3.org/2000/svg' version='1.2' baseProfile='tiny-ps' viewBox='0 0 1 1'><title> </title></svg>",
        &["svg-title"],
    ),
    (
        "<svg xmlns='http://www.w3.org/2000/svg' version='1.2' baseProfile='tiny-ps' viewBox='0 0 1 1'><g/><title>A</title></svg>",
        &["svg-title"],
    ),
    (
        "<!DOCTYPE svg><svg xmlns='http://www.w3.org/2000/svg' version='1.2' baseProfile='tiny-ps' viewBox='0 0 1 1'><title>A</title></svg>",
        &["svg-doctype"],
    ),
    (
        "<svg xmlns='http://www.w3.org/2000/svg' xmlns:i='urn:i' i:version='1.2' baseProfile='tiny-ps' viewBox='0 0 1 1'><title>A</title></svg>",
        &["svg-root", "svg-attribute"],
    ),
    ("<!DOCTYPE svg [<!ENTITY a 'b'>]><svg>&a;</svg>", &["svg-doctype"]),
    (
        "<?xml version='1.0' encoding='ISO-8859-1'?><svg xmlns='http://www.w3.org/2000/svg' version='1.2' baseProfile='tiny-ps' viewBox='0 0 1 1'><title>A</title></svg>",
        &["svg-encoding"],
    ),
];

#[test]
fn each_file_has_its_verdict() {
    for (file, expected) in FILES {
        assert_eq!(codes(file), *expected, "{file}");
    }
}

#[test]
fn a_finding_points_at_what_is_wrong() {
    let text = logo("\n<g>\n  <rect\n    ü='1'/></g>");
    let found = errors(&text);
    let place = found[0].place.clone().unwrap();
    assert_eq!((place.line_column(), &place.source.text[place.span]), ((4, 5), "ü"));
    let text = logo("\n<ä").replace("</svg>", "");
    assert_eq!(errors(&text)[0].place.clone().unwrap().line_column().0, 1);
}

#[test]
fn a_document_type_does_not_move_the_places_behind_it() {
    let text = format!("<!DOCTYPE svg PUBLIC \"ü\"\n \"x\">\n{}", logo("<image/>"));
    let found = errors(&text);
    let place = found[1].place.clone().unwrap();
    assert_eq!(
        (found[1].code, &place.source.text[place.span.clone()], place.line_column().0),
        ("svg-element", "image", 3)
    );
}

#[test]
fn a_logo_of_32_kib_conforms_and_a_larger_one_does_not() {
    let room = svg::LARGEST_LOGO - logo("<desc></desc>").len();
    let sized = |more: usize| logo(&format!("<desc>{}</desc>", "a".repeat(room + more)));
    assert_eq!((codes(&sized(0)), codes(&sized(1))), (vec![], vec!["svg-large"]));
}

#[test]
fn what_is_no_text_is_told_as_what_it_is() {
    let told = |octets: &[u8]| svg::text("logo.svg".into(), octets).unwrap_err();
    assert!(told(b"\x1f\x8b\x08\0").message.contains("compressed"));
    assert!(told(b"\xff\xfe<\0s\0").message.contains("UTF-16"));
    assert!(told(b"<\0s\0v\0").message.contains("UTF-16"));
    assert_eq!(told(b"<svg>\xff</svg>").place.unwrap().span.start, 5);
    assert_eq!(told(&vec![b' '; svg::LARGEST_DRAWING + 1]).code, "svg-large");
}

#[test]
fn hostile_drawings_are_refused_in_no_time() {
    let bombs = [
        "<!DOCTYPE svg [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'>]><svg>&b;</svg>"
            .to_owned(),
        "<!DOCTYPE svg SYSTEM 'file:///etc/passwd' [ <!ENTITY % x SYSTEM 'http://a.example/x'> %x; ]><svg/>".to_owned(),
        "<g>".repeat(300_000),
        format!("<svg {}/>", (0..60_000).map(|number| format!("a{number}=''")).collect::<Vec<_>>().join(" ")),
        format!("<svg {}/>", (0..40_000).map(|number| format!("xmlns:a{number}='b'")).collect::<Vec<_>>().join(" ")),
        logo(&format!("<path d='{}'/>", "M0 0".repeat(200_000))),
        logo(&"<rect x='\0'/>".repeat(50_000)),
        logo(&"<x/>".repeat(200_000)),
        logo(&{
            let level = |number: usize| {
                format!("<g id='a{number}'>{}</g>", format!("<use href='#a{}'/>", number - 1).repeat(10))
            };
            let levels: String = (1..30).map(level).collect();
            format!("<g id='a0'><rect/></g>{levels}")
        }),
        logo(&(1..9000).map(|number| format!("<use id='a{number}' href='#a{}'/>", number + 1)).collect::<String>()),
        logo("<g id='a'><use href='#b'/></g><g id='b'><use href='#a'/></g>"),
        logo(&format!(
            "<linearGradient id='s'>{}</linearGradient>{}",
            "<stop/>".repeat(20_000),
            (0..8_000)
                .map(|number| format!("<linearGradient id='g{number}' href='#s'/><path fill='url(#g{number})'/>"))
                .collect::<String>()
        )),
        logo(&format!(
            "<style>{}</style>{}",
            (0..20_000).map(|number| format!(".c{number}{{fill:red}}")).collect::<String>(),
            "<path/>".repeat(50_000)
        )),
        logo(&format!("<path style='{}'/>", (0..90_000).map(|number| format!("p{number}:x;")).collect::<String>())),
        "\u{feff}".repeat(1000),
    ];
    for bomb in bombs {
        let began = std::time::Instant::now();
        let wishes = Wishes { title: None, fallback: "a", square: true };
        let beginning: String = bomb.chars().take(60).collect();
        assert!(!errors(&bomb).is_empty(), "{beginning}");
        assert!(svg::fix(&source(&bomb), wishes).is_err(), "{beginning}");
        assert!(began.elapsed().as_secs() < 10, "{beginning}: {:?}", began.elapsed());
    }
}

#[test]
fn a_byte_order_mark_and_a_declaration_are_fine() {
    assert_eq!(codes(&format!("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n{}", logo(""))), Vec::<&str>::new());
}

/// The drawings of `tests/svg/`, by name.
fn drawings() -> BTreeMap<String, String> {
    let entries = fs::read_dir("tests/svg").unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|end| end == "svg"));
    files
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// How many pixels wide pictures are drawn; they are compared by squares of some pixels each.
const SIDE: u32 = 384;
const SQUARE: usize = 4;

/// Draws a drawing into the middle of a square.
fn picture(text: &str) -> tiny_skia::Pixmap {
    // The profile wants `href`, and resvg reads only `xlink:href`.
    let text = &text.replace(" href=\"#", " xmlns:xlink=\"http://www.w3.org/1999/xlink\" xlink:href=\"#");
    let tree = usvg::Tree::from_str(text, &usvg::Options::default()).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut pixels = tiny_skia::Pixmap::new(SIDE, SIDE).unwrap();
    let (width, height) = (tree.size().width(), tree.size().height());
    let scale = SIDE as f32 / width.max(height);
    let left = (SIDE as f32 - width * scale) / 2.0;
    let top = (SIDE as f32 - height * scale) / 2.0;
    resvg::render(&tree, tiny_skia::Transform::from_row(scale, 0.0, 0.0, scale, left, top), &mut pixels.as_mut());
    pixels
}

/// Returns the sum of each channel over each square of pixels.
fn squares(picture: &tiny_skia::Pixmap) -> Vec<u32> {
    let side = SIDE as usize / SQUARE;
    let mut sums = vec![0; side * side * 4];
    for (at, octet) in picture.data().iter().enumerate() {
        let (pixel, channel) = (at / 4, at % 4);
        let (column, row) = (pixel % SIDE as usize / SQUARE, pixel / SIDE as usize / SQUARE);
        sums[(row * side + column) * 4 + channel] += u32::from(*octet);
    }
    sums
}

/// Returns by how much two pictures differ at most, of 255 for a square of pixels.
fn difference(one: &tiny_skia::Pixmap, other: &tiny_skia::Pixmap) -> u32 {
    let area = (SQUARE * SQUARE) as u32;
    let (one, other) = (squares(one), squares(other));
    one.iter().zip(&other).map(|(one, other)| one.abs_diff(*other)).max().unwrap_or(0).div_ceil(area)
}

/// Coordinates are written with six digits, and colours are reckoned in whole steps, twice where an opacity is multiplied: 3.
/// An edge that is drawn by way of a layer, as of a clip, is blended in other steps of 1/16 a pixel: 16 in a few pixels of the
/// 16 of a square, so that 3 more are left of it.
const TOLERANCE: u32 = 6;

fn fixed(text: &str) -> Result<String, Vec<Diagnostic>> {
    svg::fix(&source(text), Wishes { title: None, fallback: "Example", square: true }).map(|fixed| fixed.text)
}

#[test]
fn a_mended_drawing_of_an_editor_conforms_and_looks_as_before() {
    let drawings = drawings();
    assert!(drawings.len() >= 12);
    for (name, text) in drawings {
        assert!(!errors(&text).is_empty(), "{name} conforms as it is");
        let made = fixed(&text).unwrap_or_else(|refused| panic!("{name}: {refused:#?}"));
        assert_eq!(errors(&made), [], "{name}: {made}");
        let (before, after) = (picture(&text), picture(&made));
        assert!(before.data().iter().any(|octet| *octet != 0), "{name} is empty");
        assert!(difference(&before, &after) <= TOLERANCE, "{name}: {} {made}", difference(&before, &after));
        assert_eq!(fixed(&made).unwrap(), made, "{name}: a second time changes it again");
    }
}

/// What stands in a drawing that cannot be made right, and a word of why.
const REFUSED: &[(&str, &str)] = &[
    ("<image href='data:image/png;base64,AA==' id='a'/><use href='#a'/>", "`image`"),
    ("<script>1</script>", "`script`"),
    ("<text>a<tspan>b</tspan></text>", "`tspan`"),
    ("<rect width='9' height='9'><animate attributeName='x' to='9'/></rect>", "`animate`"),
    ("<g opacity='.5'><rect width='9' height='9'/><rect width='20' height='3'/></g>", "opacity"),
    ("<rect width='9' height='9' stroke='red' opacity='.5'/>", "opacity"),
    ("<clipPath id='a'><circle r='5'/></clipPath><rect width='9' height='9' clip-path='url(#a)'/>", "clip-path"),
    (
        "<pattern id='a' width='2' height='2'><rect/></pattern><rect width='9' height='9' fill='url(#a)'/>",
        "no gradient",
    ),
    ("<filter id='a'/><rect width='9' height='9' style='filter:url(#a)'/>", "filter"),
    ("<radialGradient id='a' fx='.2'/><rect width='9' height='9' fill='url(#a)'/>", "gradient"),
    (
        "<radialGradient id='a' gradientTransform='scale(1 2)'/><rect width='9' height='9' fill='url(#a)'/>",
        "transformation",
    ),
    ("<linearGradient id='a' spreadMethod='repeat'/><rect width='9' height='9' fill='url(#a)'/>", "gradient"),
    ("<style>g > rect{fill:red}</style><g><rect width='9' height='9'/></g>", "style sheet"),
    ("<rect width='9' height='9' style='fill:red !important'/>", "style"),
    ("<rect width='9' height='9' visibility='hidden'/>", "visibility"),
    ("<rect width='9' height='9' fill='url(http://a.example/#b)'/>", "no gradient"),
    ("<use href='http://a.example/#b'/>", "no element"),
    ("<switch><g/></switch>", "`switch`"),
    ("<g display='none'><g id='a'/></g><use href='#a'/>", "hidden"),
    ("<rect width='9' height='9' paint-order='stroke' stroke='red'/>", "paint-order"),
    ("<?xml-stylesheet href='a.css'?>", "style sheet"),
];

#[test]
fn what_would_change_the_picture_is_refused_with_a_mend() {
    for (inner, why) in REFUSED {
        let refused = fixed(&logo(inner)).expect_err(inner);
        assert!(refused.iter().any(|finding| finding.message.contains(why)), "{inner}: {refused:?}");
        assert!(refused.iter().all(|finding| !finding.help.is_empty()), "{inner}: {refused:?}");
    }
}

#[test]
fn a_frame_is_made_a_square_only_when_asked_for() {
    let text = "<svg xmlns='http://www.w3.org/2000/svg' width='40' height='20'><rect width='40' height='20'/></svg>";
    let wishes = |square| Wishes { title: Some("A & \"B\" <C>"), fallback: "", square };
    assert!(svg::fix(&source(text), wishes(false)).is_err());
    let made = svg::fix(&source(text), wishes(true)).unwrap().text;
    assert!(
        made.contains("viewBox=\"0 -10 40 40\"") && made.contains("<title>A &amp; &quot;B&quot; &lt;C&gt;</title>"),
        "{made}"
    );
}

/// Elements and attributes as drawings have them, allowed or not.
fn shape() -> impl Strategy<Value = String> {
    let property = prop::sample::select(
        &[
            "fill='#c03'",
            "fill='none'",
            "stroke='#036'",
            "stroke-width='3'",
            "fill-opacity='.5'",
            "opacity='.4'",
            "opacity='1'",
            "style='fill:#0a0;stroke:none'",
            "style='opacity:.7'",
            "style='fill:url(#a)'",
            "fill='url(#b)'",
            "stroke='url(#a)'",
            "class='x'",
            "class='y z'",
            "display='none'",
            "display='inline'",
            "visibility='visible'",
            "stroke-linejoin='round'",
            "transform='rotate(10 32 32)'",
            "data-name='a'",
            "aria-label='b'",
            "shape-rendering='auto'",
            "id='shape'",
            "style='-inkscape-stroke:none;paint-order:normal'",
            "clip-path='url(#c)'",
            "font-family='a'",
            "overflow='visible'",
            "fill-rule='evenodd'",
            "style='stroke-dasharray:4, 2'",
            "style='display:none;fill:red'",
            "stroke-opacity='50%'",
        ][..],
    );
    let geometry = prop::sample::select(
        &[
            "rect x='8' y='9' width='30' height='20'",
            "circle cx='30' cy='30' r='16'",
            "path d='M5 50L60 40 30 60z'",
            "ellipse cx='40' cy='20' rx='15' ry='8'",
            "polygon points='1,1 60,9 30,40'",
            "line x1='3' y1='3' x2='60' y2='50'",
        ][..],
    );
    (geometry, prop::collection::vec(property, 0..4)).prop_map(|(geometry, properties)| {
        let mut seen = std::collections::BTreeSet::new();
        let distinct =
            properties.into_iter().filter(|property| seen.insert(property.split('=').next().unwrap_or_default()));
        format!("<{geometry} {}/>", distinct.collect::<Vec<_>>().join(" "))
    })
}

fn drawing() -> impl Strategy<Value = String> {
    let gradient = prop::sample::select(
        &[
            "<linearGradient id='a' xlink:href='#s' gradientTransform='rotate(30) scale(.8 1.2)'/>",
            "<linearGradient id='a' xlink:href='#s' x1='10' y1='5' x2='50' y2='40' gradientUnits='userSpaceOnUse' gradientTransform='matrix(.9 .3 -.2 1.1 4 -3)'/>",
            "<radialGradient id='a' xlink:href='#s' cx='30' cy='30' r='25' fx='30' fy='30' gradientUnits='userSpaceOnUse' gradientTransform='translate(3 4) rotate(20) scale(.7)'/>",
            "<linearGradient id='a' x1='0%' x2='100%' spreadMethod='pad'><stop style='stop-color:#06c'/><stop offset='1' stop-color='#fc0'/></linearGradient>",
        ][..],
    );
    let sheet = prop::sample::select(
        &[
            "",
            "<style>.x{fill:#609}.y,.z{stroke:#093}#shape{stroke-width:5}</style>",
            "<style>rect{fill:#990}.x{fill:none;stroke:#000}</style>",
        ][..],
    );
    (gradient, sheet, prop::collection::vec(shape(), 1..6), any::<bool>()).prop_map(|(gradient, sheet, shapes, group)| {
        let shapes = shapes.concat();
        let shapes = if group { format!("<g fill='#369' style='stroke:#c63;stroke-width:2px'>{shapes}</g>") } else { shapes };
        format!(
            "<?xml version='1.0'?><!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' 'x'><svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink' xmlns:i='urn:i' viewBox='0 0 64 64' x='0' y='0' width='100%' i:a='b'>\
             <defs>{sheet}<linearGradient id='s'><stop offset='0' stop-color='#f00'/><stop offset='1' stop-color='#00f' stop-opacity='.5'/></linearGradient>{gradient}\
             <radialGradient id='b' cx='.4'><stop offset='.2'/><stop offset='.9' stop-color='#ff0'/></radialGradient><clipPath id='c'><rect width='64' height='64' fill='white'/></clipPath></defs>\
             <metadata><i:x/></metadata><i:view/>{shapes}</svg>"
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_mended_conforms_and_looks_as_before(text in drawing()) {
        if let Ok(made) = fixed(&text) {
            prop_assert_eq!(errors(&made), []);
            let difference = difference(&picture(&text), &picture(&made));
            prop_assert!(difference <= TOLERANCE, "{} {} {}", difference, text, made);
        }
    }
}
