//! How far long work is, in a notebook, in a terminal, and in a log.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows how many of a known number of steps are done.
///
/// In a terminal it is a bar on standard error. A notebook gets lines on standard output, and a log gets them on standard
/// error: evcxr passes output on line by line and cannot rewrite a line, so there is a line at the start, then one every few
/// seconds, then ever more rarely (some thirty in twenty minutes), and one at the end.
///
/// This is the rim: it reads the clock, and [`auto`](Self::auto) looks at the environment. Nothing computed depends on either.
#[derive(Debug)]
pub struct Progress {
    what: String,
    total: u64,
    /// Done before the clock began.
    before: u64,
    done: u64,
    note: String,
    started: Instant,
    target: Target,
}

enum Target {
    Bar(ProgressBar),
    Lines { out: Box<dyn Write + Send>, last: Option<Duration> },
    Silent,
}

impl Progress {
    /// For where the program runs: a notebook if evcxr started it, else a terminal if standard error is one, else a log.
    pub fn auto(what: impl Into<String>, total: u64) -> Self {
        // Set by evcxr for the process that runs the cells.
        if std::env::var_os("EVCXR_IS_RUNTIME").is_some() {
            Self::notebook(what, total)
        } else if std::io::stderr().is_terminal() {
            Self::terminal(what, total)
        } else {
            Self::lines(what, total, std::io::stderr())
        }
    }

    /// Lines on standard output.
    pub fn notebook(what: impl Into<String>, total: u64) -> Self {
        Self::lines(what, total, std::io::stdout())
    }

    /// A bar on standard error.
    pub fn terminal(what: impl Into<String>, total: u64) -> Self {
        let what = what.into();
        let bar = bar(what.clone(), total);
        Self::of(what, total, Target::Bar(bar))
    }

    /// Lines into `out`.
    pub fn lines(what: impl Into<String>, total: u64, out: impl Write + Send + 'static) -> Self {
        Self::of(what.into(), total, Target::Lines { out: Box::new(out), last: None })
    }

    /// Nothing at all.
    pub fn silent() -> Self {
        Self::of(String::new(), 0, Target::Silent)
    }

    fn of(what: String, total: u64, target: Target) -> Self {
        Self { what, total, before: 0, done: 0, note: String::new(), started: Instant::now(), target }
    }

    /// With `done` steps behind it from an earlier run: they took no time of this one.
    #[must_use]
    pub fn behind(self, done: u64) -> Self {
        if let Target::Bar(bar) = &self.target {
            bar.set_position(done);
            bar.reset_eta();
        }
        Self { before: done, done, ..self }
    }

    /// `done` steps of the total are done; `note` says how it stands, such as `loss 0.4213`.
    pub fn set(&mut self, done: u64, note: impl Into<String>) {
        (self.done, self.note) = (done, note.into());
        let elapsed = self.started.elapsed();
        let line = self.line(elapsed);
        match &mut self.target {
            Target::Bar(bar) => {
                bar.set_position(done);
                bar.set_message(self.note.clone());
            }
            Target::Lines { out, last } => {
                let due = match *last {
                    None => true,
                    Some(last) => elapsed - last >= (elapsed / 4).clamp(Duration::from_secs(2), Duration::from_secs(60)),
                };
                if due {
                    *last = Some(elapsed);
                    // Progress that nobody can read is no reason to stop the work.
                    let _ = out.write_all(line.as_bytes());
                }
            }
            Target::Silent => {}
        }
    }

    /// One more step is done.
    pub fn step(&mut self, note: impl Into<String>) {
        self.set(self.done + 1, note);
    }

    /// The last word: how it stands at the end.
    pub fn finish(mut self, note: impl Into<String>) {
        self.note = note.into();
        let line = self.line(self.started.elapsed());
        match &mut self.target {
            Target::Bar(bar) => bar.finish_with_message(self.note.clone()),
            Target::Lines { out, .. } => {
                let _ = out.write_all(line.as_bytes());
            }
            Target::Silent => {}
        }
    }

    /// `train  ██████████░░░░░░░░░░   50 %  loss 0.4213  12 s, 12 s to go`
    fn line(&self, elapsed: Duration) -> String {
        const CELLS: u64 = 20;
        let part = |of: u64| (of * self.done).checked_div(self.total).map_or(of, |part| part.min(of));
        let full = part(CELLS) as usize;
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(CELLS as usize - full));
        let to_go = match self.done {
            done if done <= self.before || done >= self.total => String::new(),
            done => format!(", {} to go", span(elapsed.mul_f64((self.total - done) as f64 / (done - self.before) as f64))),
        };
        let note = if self.note.is_empty() { String::new() } else { format!("  {}", self.note) };
        format!("{}  {bar}  {:>3} %{note}  {}{to_go}\n", self.what, part(100), span(elapsed))
    }
}

fn bar(what: String, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix}  {bar:30.green}  {percent:>3} %  {msg}  {elapsed}, {eta} to go");
    let style = style.expect("the template is well-formed").progress_chars("█▉▊▋▌▍▎▏ ");
    ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style).with_prefix(what)
}

/// `8 s`, `2 min 5 s`, `1 h 20 min`.
fn span(duration: Duration) -> String {
    match duration.as_secs() {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bar(_) => "Bar",
            Self::Lines { .. } => "Lines",
            Self::Silent => "Silent",
        })
    }
}
