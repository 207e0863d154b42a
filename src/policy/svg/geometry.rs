//! Transformations, as far as a gradient's can be put into its coordinates.

use super::value;

/// An affine transformation (SVG 1.1 §7.4): `x' = ax + cy + e`, `y' = bx + dy + f`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Matrix {
    a: f64,
    b: f64,
    c: f64,
    d: f64,
    e: f64,
    f: f64,
}

/// A point.
pub(super) type Point = (f64, f64);

impl Matrix {
    const IDENTITY: Self = Self { a: 1.0, b: 0.0, c: 0.0, d: 1.0, e: 0.0, f: 0.0 };

    /// Reads a list of transformations.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut whole = Self::IDENTITY;
        let mut rest = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == ',');
        while !rest.is_empty() {
            let (name, behind) = rest.split_once('(')?;
            let (arguments, behind) = behind.split_once(')')?;
            whole = whole.then_inside(Self::one(name.trim(), &value::numbers(arguments)?)?);
            rest = behind.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ',');
        }
        Some(whole)
    }

    #[expect(clippy::many_single_char_names, reason = "the names of SVG 1.1 §7.4")]
    fn one(name: &str, arguments: &[f64]) -> Option<Self> {
        let moved = |e, f| Self { e, f, ..Self::IDENTITY };
        let turned = |degrees: f64| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            Self { a: cos, b: sin, c: -sin, d: cos, e: 0.0, f: 0.0 }
        };
        Some(match (name, arguments) {
            ("matrix", [a, b, c, d, e, f]) => Self { a: *a, b: *b, c: *c, d: *d, e: *e, f: *f },
            ("translate", [x]) => moved(*x, 0.0),
            ("translate", [x, y]) => moved(*x, *y),
            ("scale", [by]) => Self { a: *by, d: *by, ..Self::IDENTITY },
            ("scale", [x, y]) => Self { a: *x, d: *y, ..Self::IDENTITY },
            ("rotate", [degrees]) => turned(*degrees),
            ("rotate", [degrees, x, y]) => moved(*x, *y).then_inside(turned(*degrees)).then_inside(moved(-x, -y)),
            ("skewX", [degrees]) => Self { c: degrees.to_radians().tan(), ..Self::IDENTITY },
            ("skewY", [degrees]) => Self { b: degrees.to_radians().tan(), ..Self::IDENTITY },
            _ => return None,
        })
    }

    /// Returns this transformation of what another one gives.
    fn then_inside(self, inner: Self) -> Self {
        let (x, y) = (self.line((inner.a, inner.b)), self.line((inner.c, inner.d)));
        let (e, f) = self.point((inner.e, inner.f));
        Self { a: x.0, b: x.1, c: y.0, d: y.1, e, f }
    }

    /// Returns where a point goes.
    pub(super) fn point(self, point: Point) -> Point {
        let (x, y) = self.line(point);
        (x + self.e, y + self.f)
    }

    /// Returns where a direction goes.
    fn line(self, (x, y): Point) -> Point {
        (self.a * x + self.c * y, self.b * x + self.d * y)
    }

    /// Returns by how much all lengths grow, if by the same in every direction.
    pub(super) fn even_scale(self) -> Option<f64> {
        let (first, second) = (self.a.hypot(self.b), self.c.hypot(self.d));
        let skew = self.a * self.c + self.b * self.d;
        let is_even = (first - second).abs() <= first * 1e-6 && skew.abs() <= first * first * 1e-6;
        (is_even && first > 0.0).then_some(first)
    }

    /// Returns the ends of a linear gradient that looks as one between two points does transformed. Its colours change across
    /// the lines that were at right angles to it, which need not be so afterwards.
    pub(super) fn gradient(self, from: Point, to: Point) -> Option<(Point, Point)> {
        let across = self.line((from.1 - to.1, to.0 - from.0));
        let along = (-across.1, across.0);
        let (from, to) = (self.point(from), self.point(to));
        let square = along.0 * along.0 + along.1 * along.1;
        let share = ((to.0 - from.0) * along.0 + (to.1 - from.1) * along.1) / square;
        let to = (from.0 + along.0 * share, from.1 + along.1 * share);
        (square > 0.0 && to.0.is_finite() && to.1.is_finite()).then_some((from, to))
    }
}

/// Writes a number with as many digits as can be seen in a logo.
pub(super) fn written(number: f64) -> String {
    let text = format!("{number:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transformations_are_done_from_right_to_left() {
        let (x, y) = Matrix::read("translate(10,0) rotate(90) scale(2)").unwrap().point((1.0, 0.0));
        assert!((x - 10.0).abs() < 1e-9 && (y - 2.0).abs() < 1e-9);
        assert_eq!(Matrix::read("turn(1)"), None);
        assert_eq!(Matrix::read("scale(1,2,3)"), None);
    }

    #[test]
    fn only_what_grows_evenly_keeps_a_circle() {
        assert!(Matrix::read("rotate(30) scale(3)").unwrap().even_scale().is_some());
        assert!(Matrix::read("scale(1 2)").unwrap().even_scale().is_none());
        assert!(Matrix::read("skewX(10)").unwrap().even_scale().is_none());
    }

    #[test]
    fn a_sheared_gradient_keeps_its_lines() {
        let shear = Matrix::read("skewX(45)").unwrap();
        // Lines that stood upright lean by 45 degrees.
        let ((x1, y1), (x2, y2)) = shear.gradient((0.0, 0.0), (2.0, 0.0)).unwrap();
        assert!(x1.abs() < 1e-9 && y1.abs() < 1e-9 && (x2 - 1.0).abs() < 1e-9 && (y2 + 1.0).abs() < 1e-9);
    }
}
