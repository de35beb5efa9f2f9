//! Drawn shapes with labels and masks: eight classes of small colour pictures, any of them computed when asked for.
//!
//! A picture is one shape (random place, size, rotation and colour, smooth edges) before a gradient with a few stray strokes, under noise.
//! Colour and place say nothing about the class, so a network has to look at the outline. Every picture is a function of
//! `(seed, split, index)`; a set of any size costs no memory.

use std::f64::consts::{PI, TAU};

use crate::{Dataset, Error, Image, Info, Picture, Result, Rng, Sample, Seed, Split};

/// The classes in order of their labels.
pub const CLASSES: [&str; 8] = ["disc", "ring", "crescent", "triangle", "square", "cross", "star", "heart"];

/// How large, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Height and width in pixels, 8 to 1024.
    pub size: usize,
    /// Training samples of each class.
    pub train_per_class: usize,
    /// Test samples of each class.
    pub test_per_class: usize,
}

impl Default for Config {
    /// 32×32 pixels, 500 training and 100 test samples a class.
    fn default() -> Self {
        Self { size: 32, train_per_class: 500, test_per_class: 100 }
    }
}

/// Pictures `size × size × 3`; sample `i` is of class `i % 8`.
#[derive(Debug, Clone)]
pub struct Shapes {
    config: Config,
    seed: Seed,
    info: Info,
}

impl Shapes {
    /// The set that this seed draws.
    ///
    /// # Errors
    /// When `size` is out of range.
    pub fn new(config: Config, seed: Seed) -> Result<Self> {
        if !(8..=1024).contains(&config.size) {
            return Err(Error::config("shapes", "size", "8 to 1024 pixels", config.size));
        }
        let split = |name: &str, per_class| Split { name: name.to_owned(), len: CLASSES.len() * per_class };
        let info = Info {
            name: "shapes".to_owned(),
            classes: CLASSES.map(str::to_owned).to_vec(),
            splits: vec![split("train", config.train_per_class), split("test", config.test_per_class)],
        };
        Ok(Self { config, seed, info })
    }

    /// Which pixels of a sample belong to its shape: `size × size × 1`, 255 within, 0 outside, between them at the edge.
    ///
    /// # Panics
    /// When `split` or `index` is past the end.
    pub fn mask(&self, split: usize, index: usize) -> Image {
        let cover = self.scene(split, index).cover(self.config.size);
        Image::new(self.config.size, self.config.size, 1, cover.into_iter().map(byte).collect())
    }

    fn scene(&self, split: usize, index: usize) -> Scene {
        let Split { name, len } = &self.info.splits[split];
        assert!(index < *len, "sample {index} of {len} in split {name}");
        Scene::draw(index % CLASSES.len(), self.config.size as f64, self.seed.named(name).at(index as u64).rng())
    }
}

impl Dataset for Shapes {
    fn info(&self) -> &Info {
        &self.info
    }

    fn get(&self, split: usize, index: usize) -> Result<Sample> {
        let size = self.config.size;
        let scene = self.scene(split, index);
        let picture = Picture::Raw(Image::new(size, size, 3, scene.render(size)));
        let name = format!("{}/{index}", self.info.splits[split].name);
        Ok(Sample { picture, label: (index % CLASSES.len()) as u32, name })
    }
}

/// Red, green and blue, 0 to 1.
type Colour = [f64; 3];

/// Everything a picture shows, before it is cut into pixels. Lengths are in pixels.
struct Scene {
    class: usize,
    centre: [f64; 2],
    radius: f64,
    turn: f64,
    colour: Colour,
    ground: [Colour; 2],
    /// The gradient's direction.
    slope: f64,
    strokes: Vec<Stroke>,
    /// Where the noise goes on drawing.
    rng: Rng,
}

/// A straight line behind the shape.
struct Stroke {
    from: [f64; 2],
    to: [f64; 2],
    width: f64,
    colour: Colour,
}

const NOISE: f64 = 0.035;

impl Scene {
    fn draw(class: usize, size: f64, mut rng: Rng) -> Self {
        let radius = size * rng.range(0.2, 0.36);
        // A corner may leave the picture a little, the bulk may not.
        let margin = 0.85 * radius;
        let centre = [rng.range(margin, size - margin), rng.range(margin, size - margin)];
        let turn = rng.range(0.0, TAU);
        let ground = [muted(&mut rng), muted(&mut rng)];
        let slope = rng.range(0.0, TAU);
        let strokes = (0..2 + rng.below(3)).map(|_| Stroke::draw(size, &mut rng)).collect();
        // A shape as bright as its ground could not be told from it: such colours are drawn again.
        let middle = (brightness(ground[0]) + brightness(ground[1])) / 2.0;
        let colour = loop {
            let colour = hsv(rng.range(0.0, 1.0), rng.range(0.35, 1.0), rng.range(0.2, 1.0));
            if (brightness(colour) - middle).abs() > 0.22 {
                break colour;
            }
        };
        Self { class, centre, radius, turn, colour, ground, slope, strokes, rng }
    }

    /// `size × size × 3` bytes, row after row.
    fn render(mut self, size: usize) -> Vec<u8> {
        let cover = self.cover(size);
        let (sin, cos) = self.slope.sin_cos();
        let mut pixels = Vec::with_capacity(size * size * 3);
        for (at, cover) in cover.into_iter().enumerate() {
            let [x, y] = [(at % size) as f64 + 0.5, (at / size) as f64 + 0.5];
            let along = ((x / size as f64 - 0.5) * cos + (y / size as f64 - 0.5) * sin) / 1.42 + 0.5;
            let mut colour = mix(self.ground[0], self.ground[1], along);
            for stroke in &self.strokes {
                colour = mix(colour, stroke.colour, stroke.cover([x, y]));
            }
            colour = mix(colour, self.colour, cover);
            pixels.extend(colour.map(|channel| byte(channel + NOISE * self.rng.normal())));
        }
        pixels
    }

    /// How much of each pixel the shape covers, 0 to 1: the mean of 4×4 points.
    fn cover(&self, size: usize) -> Vec<f64> {
        const GRID: usize = 4;
        let (sin, cos) = self.turn.sin_cos();
        let mut cover = vec![0.0; size * size];
        for (at, cover) in cover.iter_mut().enumerate() {
            let corner = [(at % size) as f64 - self.centre[0], (at / size) as f64 - self.centre[1]];
            if corner.iter().any(|distance| distance.abs() > self.radius + 1.0) {
                continue;
            }
            let hits = (0..GRID * GRID).filter(|point| {
                let x = corner[0] + ((point % GRID) as f64 + 0.5) / GRID as f64;
                let y = corner[1] + ((point / GRID) as f64 + 0.5) / GRID as f64;
                inside(self.class, (x * cos + y * sin) / self.radius, (y * cos - x * sin) / self.radius)
            });
            *cover = hits.count() as f64 / (GRID * GRID) as f64;
        }
        cover
    }
}

impl Stroke {
    fn draw(size: f64, rng: &mut Rng) -> Self {
        let from = [rng.range(0.0, size), rng.range(0.0, size)];
        let (sin, cos) = rng.range(0.0, TAU).sin_cos();
        let length = size * rng.range(0.2, 0.5);
        let to = [from[0] + length * cos, from[1] + length * sin];
        Self { from, to, width: size * rng.range(0.02, 0.05), colour: muted(rng) }
    }

    /// How much of the pixel about a point the stroke covers, 0 to 1.
    fn cover(&self, [x, y]: [f64; 2]) -> f64 {
        let [dx, dy] = [self.to[0] - self.from[0], self.to[1] - self.from[1]];
        let [px, py] = [x - self.from[0], y - self.from[1]];
        let along = ((px * dx + py * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
        let distance = (px - along * dx).hypot(py - along * dy);
        (self.width / 2.0 + 0.5 - distance).clamp(0.0, 1.0)
    }
}

/// Whether a point is within the shape of a class, upright, about the origin and within the unit disc. `y` points down.
fn inside(class: usize, x: f64, y: f64) -> bool {
    let radius = x.hypot(y);
    match CLASSES[class] {
        "disc" => radius < 0.85,
        "ring" => (0.52..0.95).contains(&radius),
        "crescent" => radius < 0.95 && (x - 0.45).hypot(y) > 0.72,
        "triangle" => y < 0.5 && 1.732 * x.abs() - y < 1.0,
        "square" => x.abs().max(y.abs()) < 0.7,
        "cross" => x.abs().min(y.abs()) < 0.27 && x.abs().max(y.abs()) < 0.95,
        "star" => {
            // Folded onto one half of one of the five points, the outline is a single line from tip to notch.
            let fold = (x.atan2(-y).rem_euclid(TAU / 5.0) - PI / 5.0).abs();
            let [u, v] = [radius * (PI / 5.0 - fold).cos(), radius * (PI / 5.0 - fold).sin()];
            let notch = [0.42 * (PI / 5.0).cos(), 0.42 * (PI / 5.0).sin()];
            (u - 1.0) * notch[1] - v * (notch[0] - 1.0) < 0.0
        }
        "heart" => {
            let [x, y] = [1.25 * x, 1.25 * (0.1 - y)];
            (x * x + y * y - 1.0).powi(3) < x * x * y.powi(3)
        }
        _ => unreachable!("all classes are above"),
    }
}

/// A colour that leaves room for the shape's.
fn muted(rng: &mut Rng) -> Colour {
    hsv(rng.range(0.0, 1.0), rng.range(0.0, 0.5), rng.range(0.15, 0.85))
}

fn hsv(hue: f64, saturation: f64, value: f64) -> Colour {
    [5.0, 3.0, 1.0].map(|shift| {
        let place = (shift + 6.0 * hue) % 6.0;
        value * (1.0 - saturation * place.min(4.0 - place).clamp(0.0, 1.0))
    })
}

fn brightness([red, green, blue]: Colour) -> f64 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

fn mix(under: Colour, over: Colour, cover: f64) -> Colour {
    std::array::from_fn(|channel| under[channel] + (over[channel] - under[channel]) * cover)
}

fn byte(level: f64) -> u8 {
    (level.clamp(0.0, 1.0) * 255.0).round() as u8
}
