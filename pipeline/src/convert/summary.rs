//! What a conversion left out and changed, as a table.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

use super::Report;

impl Display for Report {
    /// A row for each reason to leave pictures out, to pass over files, or to write pictures anew; nothing where there is none.
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let mut reasons: BTreeMap<String, (u64, &str)> = BTreeMap::new();
        for skipped in &self.meta.skipped {
            reasons.entry(kind(&skipped.reason)).or_insert((0, &skipped.name)).0 += 1;
        }
        for (reason, (count, first)) in &reasons {
            writeln!(f, "{count:>8} left out   {reason} (first: {first})")?;
        }
        for (reason, count) in &self.meta.ignored {
            writeln!(f, "{count:>8} passed over {reason} files")?;
        }
        for (reason, count) in &self.meta.rewritten {
            writeln!(f, "{count:>8} rewritten  {reason}")?;
        }
        Ok(())
    }
}

/// A reason without its numbers, and without bytes in brackets, which differ from picture to picture.
fn kind(reason: &str) -> String {
    let mut kind = String::with_capacity(reason.len());
    let mut bracket = false;
    for letter in reason.chars() {
        bracket = (bracket || letter == '[') && letter != ']';
        let shown = if letter.is_ascii_digit() || bracket { '#' } else { letter };
        if shown != '#' || !kind.ends_with('#') {
            kind.push(shown);
        }
    }
    kind.replace("#]", "#")
}
