//! Shows a store and its inspection: as text, as HTML, in a notebook.

use std::fmt::{Display, Formatter, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use datasets::Image;

use crate::inspect::{Inspection, Readers, grid, inspect};
use crate::store::{Extent, Form, Pictures, Resize};
use crate::{Result, Store};

impl Display for Inspection {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        for (field, value) in self.rows() {
            writeln!(f, "{field:<10} {value}")?;
        }
        for ((name, len, pictures), readers) in self.splits.iter().zip(&self.readers) {
            writeln!(f, "\n{name}: {len} pictures")?;
            for (field, value) in split_rows(pictures, readers) {
                writeln!(f, "  {field:<8} {value}")?;
            }
        }
        Ok(())
    }
}

impl Inspection {
    /// The same as a fragment of HTML.
    pub fn html(&self) -> String {
        let mut html = String::from("<table>");
        for (field, value) in self.rows() {
            row(&mut html, field, &[value]);
        }
        html.push_str("</table><table>");
        row(&mut html, "split", &self.splits.iter().map(|(name, len, _)| format!("{name}: {len} pictures")).collect::<Vec<_>>());
        let splits: Vec<_> =
            self.splits.iter().zip(&self.readers).map(|((_, _, pictures), readers)| split_rows(pictures, readers)).collect();
        for &(field, _) in splits.iter().max_by_key(|rows| rows.len()).into_iter().flatten() {
            let cell = |rows: &Vec<(&str, String)>| {
                rows.iter().find(|(name, _)| *name == field).map_or_else(String::new, |(_, cell)| cell.clone())
            };
            row(&mut html, field, &splits.iter().map(cell).collect::<Vec<_>>());
        }
        html.push_str("</table>");
        html
    }

    /// Shows the HTML in a notebook: evcxr calls it for the last value of a cell.
    pub fn evcxr_display(&self) {
        display(&self.html());
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("name", self.name.clone()),
            ("source", self.source.clone()),
            ("classes", format!("{}: {}", self.classes.len(), list(&self.classes))),
            ("file", format!("{}, {:.3} of the pictures' {}", bytes(self.file_bytes), self.ratio(), bytes(self.picture_bytes()))),
            ("content", self.content.clone()),
        ];
        if let Some(normalize) = &self.normalize {
            let pictures =
                self.splits.iter().find(|(name, ..)| name == "train").or(self.splits.first()).map_or(0, |(_, len, _)| *len as u64);
            let of = if self.measured < pictures { format!(" (of {} pictures)", self.measured) } else { String::new() };
            rows.push(("mean", numbers(&normalize.mean) + &of));
            rows.push(("std", numbers(&normalize.std) + &of));
        }
        if let Some(form) = form(&self.form) {
            rows.push(("form", form));
        }
        for (reason, count) in &self.rewritten {
            rows.push(("rewritten", format!("{count} {reason}")));
        }
        if self.skipped > 0 {
            rows.push(("skipped", format!("{} pictures of the source", self.skipped)));
        }
        rows
    }
}

impl Store {
    /// What is in the store and some of its pictures, as a fragment of HTML.
    ///
    /// # Errors
    /// When a picture cannot be read.
    pub fn html(&self) -> Result<String> {
        let mut html = inspect(self).html();
        if (0..self.meta().splits.len()).any(|split| self.len(split) > 0) {
            let split = (0..self.meta().splits.len()).find(|&split| self.len(split) > 0).unwrap_or(0);
            let picture = BASE64_STANDARD.encode(png(&grid(self, split, 3, 10)?));
            let name = escape(&self.meta().splits[split].name);
            let _ = write!(html, "<img alt=\"pictures of split {name}\" src=\"data:image/png;base64,{picture}\">");
        }
        Ok(html)
    }

    /// Shows the HTML in a notebook: evcxr calls it for the last value of a cell.
    pub fn evcxr_display(&self) {
        let html = self.html().unwrap_or_else(|error| format!("{}<p>{}</p>", inspect(self).html(), escape(&error.to_string())));
        display(&html);
    }
}

/// Means or deviations as papers print them.
pub fn numbers(values: &[f32]) -> String {
    values.iter().map(|value| format!("{value:.4}")).collect::<Vec<_>>().join(", ")
}

/// The picture as a PNG file.
///
/// # Panics
/// When it has other than 1 or 3 channels.
pub fn png(image: &Image) -> Vec<u8> {
    let color = match image.channels {
        1 => image::ExtendedColorType::L8,
        3 => image::ExtendedColorType::Rgb8,
        channels => panic!("a picture has 1 or 3 channels, not {channels}"),
    };
    let mut file = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut file);
    image::ImageEncoder::write_image(encoder, &image.pixels, image.width as u32, image.height as u32, color)
        .expect("the pixels fit the size, and memory can be written");
    file
}

fn split_rows(pictures: &Pictures, readers: &Readers) -> Vec<(&'static str, String)> {
    let count = |(name, count): (&str, u64)| (count > 0).then(|| format!("{count} {name}"));
    let kinds = [("raw", pictures.raw), ("JPEG", pictures.jpeg), ("PNG", pictures.png), ("of them grey", pictures.grey)];
    let extent = |extent: Option<Extent>| match extent {
        None => "-".to_owned(),
        Some(Extent { min, max, .. }) if min == max => format!("{min} px"),
        Some(Extent { min, median, max }) => format!("{min} to {max} px, median {median}"),
    };
    let (fewest, most) = (pictures.per_class.iter().min().unwrap_or(&0), pictures.per_class.iter().max().unwrap_or(&0));
    let labels = match pictures.per_class.len() {
        0..=20 => pictures.per_class.iter().map(u64::to_string).collect::<Vec<_>>().join(" "),
        _ if fewest == most => format!("{fewest} of each class"),
        _ => format!("{fewest} to {most} of a class"),
    };
    let notes = [
        ("progressive", pictures.progressive),
        ("turned by EXIF", pictures.turned),
        ("with ICC profile", pictures.icc),
        ("16-bit", pictures.deep),
    ];
    let list = |counts: Vec<(&str, u64)>| counts.into_iter().filter_map(count).collect::<Vec<_>>().join(", ");
    let mut rows = vec![
        ("encoding", list(kinds.to_vec())),
        ("height", extent(pictures.height)),
        ("width", extent(pictures.width)),
        ("labels", labels),
        ("size", bytes(pictures.bytes)),
    ];
    // Empty for many; readers pay no heed to any of it.
    if notes.iter().any(|(_, count)| *count > 0) {
        rows.push(("noted", list(notes.to_vec())));
    }
    rows.extend(decoder(readers).map(|decoder| ("decoder", decoder)));
    rows
}

/// Who decodes the JPEG files.
fn decoder(Readers { own, general }: &Readers) -> Option<String> {
    let all = own + general.values().sum::<u64>();
    let parts = general.iter().map(|(reason, count)| format!("general for {count} {reason}"));
    let parts: Vec<String> = (*own > 0).then(|| format!("own for {own}")).into_iter().chain(parts).collect();
    (all > 0).then(|| format!("{} (of {all} JPEG looked at)", parts.join(", ")))
}

/// What was made of the pictures, where they are not as they came.
fn form(form: &Form) -> Option<String> {
    let Form { resize, raw, indexed, upright, quality } = *form;
    let size = resize.map(|resize| match resize {
        Resize::Shorter(pixels) => format!("shorter side at most {pixels} px"),
        Resize::Longer(pixels) => format!("longer side at most {pixels} px"),
    });
    let file = if raw { Some("pixels".to_owned()) } else { resize.map(|_| format!("JPEG quality {quality}")) };
    let parts: Vec<String> =
        [size, file, upright.then(|| "upright".to_owned()), indexed.then(|| "rows indexed".to_owned())].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn list(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, ...") } else { shown }
}

/// So many bytes, in a unit that a person would choose.
fn bytes(count: u64) -> String {
    match count {
        0..=9_999 => format!("{count} B"),
        10_000..=999_999 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..=999_999_999 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

fn row(html: &mut String, head: &str, cells: &[String]) {
    let _ = write!(html, "<tr><th>{}</th>", escape(head));
    for cell in cells {
        let _ = write!(html, "<td>{}</td>", escape(cell));
    }
    html.push_str("</tr>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[expect(clippy::print_stdout, reason = "evcxr takes what a cell shows from standard output")]
fn display(html: &str) {
    println!("EVCXR_BEGIN_CONTENT text/html\n{html}\nEVCXR_END_CONTENT");
}
