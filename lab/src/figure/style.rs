//! What all figures share: colours that colour-blind readers can tell apart, words for columns, and the outer element.

use plotters::style::RGBColor;

use crate::table::Datum;

/// Text, lines of the frame, and lines of the grid.
pub(super) const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
pub(super) const FAINT: RGBColor = RGBColor(0x77, 0x77, 0x77);
pub(super) const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);

/// Okabe & Ito 2008, without the yellow that vanishes on white.
const DISTINCT: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x66, 0x66, 0x66),
];

/// Points on a scale from dark blue over green to yellow, whose lightness grows evenly.
const SCALE: [(f64, f64, f64); 6] =
    [(68.0, 1.0, 84.0), (65.0, 68.0, 135.0), (42.0, 120.0, 142.0), (34.0, 168.0, 132.0), (122.0, 209.0, 81.0), (253.0, 231.0, 37.0)];

/// The first of the distinct colours: of everything that has no groups.
pub(super) const PLAIN: RGBColor = DISTINCT[0];

/// The colour at `part` of the way along the scale, `0.0..=1.0`.
pub(super) fn scale(part: f64) -> RGBColor {
    let at = part.clamp(0.0, 1.0) * (SCALE.len() - 1) as f64;
    let from = (at as usize).min(SCALE.len() - 2);
    let mix = |a: f64, b: f64| (a + (b - a) * (at - from as f64)).round() as u8;
    let (a, b) = (SCALE[from], SCALE[from + 1]);
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

/// Whether white text reads better on this colour than black.
pub(super) fn is_dark(RGBColor(r, g, b): RGBColor) -> bool {
    0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b) < 140.0
}

/// A colour for each group: distinct ones for a few names, a scale for quantities and for many names.
pub(super) fn colours(groups: &[Datum]) -> Vec<RGBColor> {
    let quantities = groups.len() > 2 && groups.iter().all(|group| matches!(group, Datum::Int(_) | Datum::Float(_)));
    if quantities || groups.len() > DISTINCT.len() {
        // Not to the very end, where the scale is too light for lines on white.
        (0..groups.len()).map(|at| scale(0.86 * at as f64 / (groups.len() - 1) as f64)).collect()
    } else {
        DISTINCT[..groups.len()].to_vec()
    }
}

/// The different values of a column: numbers in ascending order, texts in the order of their first rows.
pub(super) fn groups(cells: &[Datum]) -> Vec<Datum> {
    let mut groups: Vec<Datum> = Vec::new();
    for cell in cells {
        if !groups.iter().any(|group| same(group, cell)) {
            groups.push(cell.clone());
        }
    }
    let number = |datum: &Datum| match datum {
        Datum::Int(count) => Some(*count as f64),
        Datum::Float(number) => Some(*number),
        _ => None,
    };
    // Stable, so that texts (and missing cells, after everything else) stay in their order.
    groups.sort_by(|a, b| match (number(a), number(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => (*a == Datum::Missing).cmp(&(*b == Datum::Missing)),
    });
    groups
}

/// Whether two cells are the same group; unlike `==`, NaN is NaN.
pub(super) fn same(a: &Datum, b: &Datum) -> bool {
    match (a, b) {
        (Datum::Float(a), Datum::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
        (a, b) => a == b,
    }
}

/// How a group is called in a legend or at an axis.
pub(super) fn name(group: &Datum) -> String {
    match group {
        Datum::Missing => "(missing)".to_owned(),
        other => other.to_string(),
    }
}

/// A column's name in words: `nn_mass` is NN-Mass, `test_accuracy` is Test accuracy.
pub(super) fn human(column: &str) -> String {
    let known = [
        ("nn_mass", "NN-Mass"),
        ("params", "Parameters"),
        ("macs", "MACs"),
        ("flops", "FLOPs"),
        ("ldi", "LDI"),
        ("lr", "Learning rate"),
        ("r2", "R²"),
    ];
    if let Some((_, words)) = known.iter().find(|(name, _)| *name == column) {
        return words.to_string();
    }
    let words = column.replace(['_', '.'], " ");
    let mut letters = words.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// About how many pixels wide a text is in a sans-serif font of `size` pixels: on the safe side for words and numbers.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | '|' | '\'' | ' ' => 0.36,
        'm' | 'w' | 'M' | 'W' | '…' | '—' => 0.95,
        c if c.is_uppercase() => 0.72,
        _ => 0.62,
    };
    text.chars().map(em).sum::<f64>() * size
}

/// A text cut to `room` pixels, with an ellipsis where something is missing.
pub(crate) fn cut(text: &str, size: f64, room: f64) -> String {
    if text_width(text, size) <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        if text_width(&kept, size) + text_width(&format!("{c}…"), size) > room {
            break;
        }
        kept.push(c);
    }
    format!("{}…", kept.trim_end())
}

/// The outer element: `size` pixels on the page, white, with a coordinate system of `units` for the content.
pub(crate) fn document(size: (u32, u32), units: (u32, u32), content: &str) -> String {
    format!(
        "<svg width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\" xmlns=\"http://www.w3.org/2000/svg\">\n\
         <rect width=\"{2}\" height=\"{3}\" fill=\"#fff\"/>\n{content}</svg>\n",
        size.0, size.1, units.0, units.1
    )
}
