//! Gradients: what they take from others is written into them, and so is their transformation.

use roxmltree::Node;

use super::{Fixer, GRADIENTS};
use crate::policy::svg::geometry::{Matrix, written};
use crate::policy::svg::markup::{XLINK, own, svg_name};
use crate::policy::svg::value;
use crate::policy::svg::write::Out;

/// The attributes that are dealt with here, allowed or not.
pub(super) const OWN: [&str; 8] = ["gradientTransform", "spreadMethod", "fx", "fy", "fr", "href", "gradientUnits", "r"];

/// How many gradients may build on one another.
const CHAIN: usize = 16;

/// How many stops all gradients may have once each has its own.
const STOPS: usize = 5_000;

impl<'a, 'd> Fixer<'a, 'd> {
    /// Writes a gradient's coordinates as the profile has them, and returns its stops.
    pub(super) fn gradient(&mut self, node: Node<'a, 'd>, out: &mut Out) -> Vec<Node<'a, 'd>> {
        if self.stops > STOPS {
            // Refused by now.
            return Vec::new();
        }
        let mut chain = vec![node];
        while let Some(next) = chain.last().and_then(|last| self.next(*last)) {
            if chain.contains(&next) || chain.len() > CHAIN {
                break;
            }
            chain.push(next);
            self.changed("wrote into gradients what they take from others");
        }
        let linear = out.name == "linearGradient";
        let inherited = |name: &str| {
            let fits = |of: &&Node<'_, '_>| {
                ["gradientUnits", "gradientTransform", "spreadMethod"].contains(&name)
                    || svg_name(**of) == svg_name(node)
            };
            chain.iter().filter(fits).find_map(|of| own(*of, name)).map(|text| text.trim().to_owned())
        };
        let names: &[&str] = if linear { &["x1", "y1", "x2", "y2"] } else { &["cx", "cy", "r"] };
        out.attributes.retain(|(name, _)| name != "gradientUnits" && !names.contains(&name.as_str()));
        let units = inherited("gradientUnits");
        let values: Vec<Option<String>> = names.iter().map(|name| inherited(name)).collect();
        let written_values = match inherited("gradientTransform") {
            None => Some(values.clone()),
            Some(text) => self.transformed(&text, &values, units.as_deref() == Some("userSpaceOnUse"), linear),
        };
        let spread = inherited("spreadMethod").is_none_or(|method| method == "pad");
        let of = |name: &str, like: usize| {
            let like = values.get(like).cloned().flatten();
            inherited(name).is_none_or(|own| Some(own) == like)
        };
        let focus = linear
            || (of("fx", 0) && of("fy", 1) && inherited("fr").is_none_or(|radius| value::number(&radius) == Some(0.0)));
        if !spread || !focus {
            let help = "draw it as a plain gradient: not repeated, its focus in its centre";
            self.refuse(super::name_span(node), "this kind of gradient is not in the profile", help);
        }
        let Some(written_values) = written_values else {
            let help = "draw the gradient anew, without distorting it";
            self.refuse(
                super::name_span(node),
                "the gradient's transformation cannot be put into its coordinates",
                help,
            );
            return Vec::new();
        };
        out.attributes.extend(units.map(|units| ("gradientUnits".to_owned(), units)));
        let pairs = names.iter().zip(written_values);
        out.attributes.extend(pairs.filter_map(|(name, text)| text.map(|text| ((*name).to_owned(), text))));
        let is_stop = |child: &Node<'_, '_>| svg_name(*child) == Some("stop");
        let with_stops = chain.iter().find(|of| of.children().any(|child| is_stop(&child)));
        let stops: Vec<_> = with_stops.map(|of| of.children().collect()).unwrap_or_default();
        self.stops += stops.len();
        if self.stops > STOPS {
            let help = "draw with fewer gradients";
            self.refuse(super::name_span(node), "the gradients have thousands of stops", help);
            return Vec::new();
        }
        stops
    }

    /// Returns the gradient that one builds on.
    fn next(&self, node: Node<'a, 'd>) -> Option<Node<'a, 'd>> {
        let link = own(node, "href").or_else(|| node.attribute((XLINK, "href")))?;
        let target = self.target(link.strip_prefix('#')?)?;
        svg_name(target).is_some_and(|name| GRADIENTS.contains(&name)).then_some(target)
    }

    /// Returns the coordinates with a transformation put into them.
    fn transformed(
        &mut self,
        text: &str,
        values: &[Option<String>],
        in_user_space: bool,
        linear: bool,
    ) -> Option<Vec<Option<String>>> {
        let matrix = Matrix::read(text)?;
        self.changed("put transformations of gradients into their coordinates");
        // What is not written is a share of the frame, or of the shape.
        let defaults: &[f64] = if linear { &[0.0, 0.0, 1.0, 0.0] } else { &[0.5, 0.5, 0.5] };
        let numbers: Option<Vec<f64>> = values
            .iter()
            .zip(defaults)
            .map(|(text, default)| match text {
                None if in_user_space && *default > 0.0 => None,
                None => Some(*default),
                Some(text) => match text.strip_suffix('%') {
                    Some(percent) if !in_user_space => value::number(percent).map(|percent| percent / 100.0),
                    _ => value::pixels(text),
                },
            })
            .collect();
        let numbers = match *numbers.as_deref()? {
            [x1, y1, x2, y2] => {
                let (from, to) = matrix.gradient((x1, y1), (x2, y2))?;
                vec![from.0, from.1, to.0, to.1]
            }
            [cx, cy, r] => {
                let centre = matrix.point((cx, cy));
                vec![centre.0, centre.1, r * matrix.even_scale()?]
            }
            _ => return None,
        };
        Some(numbers.into_iter().map(|number| Some(written(number))).collect())
    }
}
