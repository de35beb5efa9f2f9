//! Picture to picture, by a seed.
//!
//! A list of [`Transform`]s reads as the data flows. Each draws from a generator that belongs to the sample and the epoch, so that what was
//! done to a picture can be done again. All work on stored pixels (`u8`, channels last), before normalisation.

mod contrast;
mod crop;
mod cutout;
mod flip;
mod jitter;
pub mod normalize;
mod presets;
mod resample;
mod resize;
mod rotate;
mod ten_crop;

use datasets::{Image, Normalize, Rng};
use serde::{Deserialize, Serialize};

use crate::decode::Window;
use crate::{Error, Result};

pub use contrast::Contrast;
pub use presets::{cifar_eval, cifar_train, colour_jitter, imagenet_eval, imagenet_ten_crop, imagenet_train, tiny_eval, tiny_train};
pub(crate) use resize::resize;
pub use rotate::Between;

/// One step from picture to picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Transform {
    /// Resizes so that the shorter side has `shorter` pixels; the other keeps the proportion, rounded down.
    ///
    /// Bilinear with antialiasing, as Pillow does it: when shrinking, each pixel is a weighted mean of all that it covers.
    Resize {
        /// Pixels.
        shorter: usize,
    },
    /// Resizes to exactly this, whatever the proportion.
    ResizeTo {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// The `size × size` pixels in the middle; where an odd number is left over, the offset is rounded half to even.
    CentreCrop {
        /// Pixels.
        size: usize,
    },
    /// Pads each side with `pad` black pixels and cuts out `size × size` pixels, anywhere.
    PadCrop {
        /// Pixels.
        size: usize,
        /// Pixels.
        pad: usize,
    },
    /// Cuts out a rectangle of random area and proportion, anywhere, and resizes it to `size × size`.
    ///
    /// The proportion is uniform in its logarithm. After ten rectangles that do not fit, the largest central one of an allowed proportion.
    RandomResizedCrop {
        /// Pixels.
        size: usize,
        /// Least and largest part of the picture's area.
        #[serde(default = "crop::area")]
        area: [f64; 2],
        /// Least and largest width ÷ height.
        #[serde(default = "crop::ratio")]
        ratio: [f64; 2],
    },
    /// Mirrors left and right with probability `p`.
    Flip {
        /// In `0.0..=1.0`.
        p: f64,
    },
    /// Turns the picture about its middle by a random angle; its size stays the same.
    Rotate {
        /// Least and largest angle in degrees, counter-clockwise.
        degrees: [f64; 2],
        /// What colour there is between pixels. Default: that of the nearest one.
        #[serde(default)]
        between: Between,
        /// What comes into sight from outside; of grey pictures, the first number. Default black.
        #[serde(default)]
        fill: [u8; 3],
    },
    /// Changes brightness, contrast, saturation and hue at random, in random order, as torchvision's `ColorJitter` does;
    /// [`colour_jitter`] takes its four numbers. Grey pictures have neither saturation nor hue.
    ColourJitter {
        /// Least and largest factor; 1, the default of both, changes nothing, 0 makes all black.
        #[serde(default = "jitter::same")]
        brightness: [f64; 2],
        /// Least and largest factor; 1, the default of both, changes nothing, 0 makes all the mean grey.
        #[serde(default = "jitter::same")]
        contrast: [f64; 2],
        /// Least and largest factor; 1, the default of both, changes nothing, 0 makes a grey picture.
        #[serde(default = "jitter::same")]
        saturation: [f64; 2],
        /// Least and largest turn of the colour circle, -½ to ½. Default 0.
        #[serde(default)]
        hue: [f64; 2],
    },
    /// Makes ten pictures of one: its four corners and its middle, `size × size` pixels each, and the same of the mirrored picture, in
    /// torchvision's order. As the last step; batches are then `[n, 10, c, size, size]`, and [`Augment::apply`] leaves the ten one below the
    /// other.
    TenCrop {
        /// Pixels.
        size: usize,
    },
    /// Blanks a square (DeVries & Taylor 2017) of `length` pixels, rounded down to even, whose centre is any pixel; what reaches over the
    /// border is cut off.
    ///
    /// Published code writes 0 after normalisation, which is the mean colour. Here pixels are still `u8`, so the square gets the pixel that
    /// normalisation takes nearest to 0: within `0.5 / (255 × std)`, some 0.01, of the published value. Without normalisation it is black.
    Cutout {
        /// Pixels.
        length: usize,
    },
}

/// A step that does not fit a picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AugmentError {
    /// A crop larger than the picture.
    #[error("{step}: wanted a picture of at least {wanted}×{wanted} pixels, found {height}×{width}")]
    Small {
        /// The step.
        step: &'static str,
        /// Least rows and columns.
        wanted: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// A picture so narrow that resizing its shorter side would make a monster of the longer one.
    #[error("resize: wanted at most {LONGEST} pixels on the longer side, {height}×{width} would become {found}")]
    Narrow {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// The longer side after resizing.
        found: usize,
    },
}

/// Pixels on a side that no step exceeds.
const LONGEST: usize = 65_535;

/// What a factor of colour may be; far beyond 1 little but black and white is left.
const FACTORS: [f64; 2] = [0.0, 100.0];

/// A list of steps, checked, and what they need to know of the rest of the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Augment {
    transforms: Vec<Transform>,
    /// The pixel that normalisation takes nearest to 0, by channel; black where there is none.
    blank: [u8; 3],
}

/// Memory that one thread uses again for each picture.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) spare: Vec<u8>,
    resampler: resample::Resampler,
}

impl Augment {
    /// These steps, before this normalisation.
    ///
    /// # Errors
    /// When a number in them makes no sense; the message names the step and the field.
    pub fn new(transforms: Vec<Transform>, normalize: Option<&Normalize>) -> Result<Self> {
        for (at, transform) in transforms.iter().enumerate() {
            transform.check(&format!("transforms[{at}]"))?;
            if matches!(transform, Transform::TenCrop { .. }) && at + 1 < transforms.len() {
                return Err(Error::config(
                    format!("transforms[{at}]"),
                    "ten_crop as the last step",
                    format!("{} after it", transforms.len() - 1 - at),
                ));
            }
        }
        let mean = |channel: usize| normalize.and_then(|n| n.mean.get(channel).or(n.mean.first())).copied().unwrap_or(0.0);
        let blank = std::array::from_fn(|channel| (mean(channel) * 255.0).round().clamp(0.0, 255.0) as u8);
        Ok(Self { transforms, blank })
    }

    /// Whether no picture is changed.
    pub fn is_empty(&self) -> bool {
        self.transforms.is_empty()
    }

    /// How many pictures become of one.
    pub fn views(&self) -> usize {
        if matches!(self.transforms.last(), Some(Transform::TenCrop { .. })) { ten_crop::VIEWS } else { 1 }
    }

    /// Takes `image` through all steps.
    ///
    /// # Errors
    /// When the picture is too small for a crop or too narrow for a resize; then `image` holds nothing of use.
    pub fn apply(&self, image: &mut Image, rng: &mut Rng, scratch: &mut Scratch) -> Result<(), AugmentError> {
        let whole = [image.height, image.width];
        let part = self.part(whole, rng);
        self.apply_to((whole, part), image, rng, scratch)
    }

    /// What the steps need of a picture of so many rows and columns, so that only that need be decoded: what a first random crop takes, which
    /// is drawn here, or what a centre crop leaves of a picture that was resized.
    pub fn part(&self, whole: [usize; 2], rng: &mut Rng) -> Window {
        match self.transforms[..] {
            [Transform::RandomResizedCrop { area, ratio, .. }, ..] => crop::random_window(whole, area, ratio, rng),
            [Transform::Resize { shorter }, Transform::CentreCrop { size }, ..] => {
                resize::middle(whole, shorter, size).map_or(Window::whole(whole), |sides| resize::needs(&sides))
            }
            _ => Window::whole(whole),
        }
    }

    /// As [`Augment::apply`], of a picture of `whole` rows and columns: what [`Augment::part`] has said is needed lies in `part` of `image`.
    ///
    /// # Errors
    /// As those of [`Augment::apply`].
    pub fn apply_to(
        &self,
        (whole, part): ([usize; 2], Window),
        image: &mut Image,
        rng: &mut Rng,
        scratch: &mut Scratch,
    ) -> Result<(), AugmentError> {
        if self.apply_but_mirror((whole, part), image, rng, scratch)? {
            flip::flip(image);
        }
        Ok(())
    }

    /// As [`Augment::apply_to`], but where the last step is a flip, the result says whether the picture is still to be mirrored: whoever writes
    /// its planes does so at less cost.
    pub(crate) fn apply_but_mirror(
        &self,
        place: ([usize; 2], Window),
        image: &mut Image,
        rng: &mut Rng,
        scratch: &mut Scratch,
    ) -> Result<bool, AugmentError> {
        let mut mirror = false;
        let steps = self.begin(place, image, scratch);
        for (at, transform) in steps.iter().enumerate() {
            match *transform {
                Transform::Resize { shorter } => resize::shorter_side(image, shorter, scratch)?,
                Transform::ResizeTo { height, width } => resize::resize(image, [height, width], scratch),
                Transform::CentreCrop { size } => crop::centre_crop(image, size, scratch)?,
                Transform::PadCrop { size, pad } => crop::pad_crop(image, size, pad, rng, scratch)?,
                Transform::RandomResizedCrop { size, area, ratio } => {
                    let window = crop::random_window([image.height, image.width], area, ratio, rng);
                    resize::resize_window(image, window, [size, size], scratch);
                }
                Transform::Flip { p } => match rng.chance(p) {
                    true if at + 1 == steps.len() => mirror = true,
                    true => flip::flip(image),
                    false => {}
                },
                Transform::Rotate { degrees: [least, largest], between, ref fill } => {
                    rotate::rotate(image, rng.range(least, largest), between, fill, scratch);
                }
                Transform::ColourJitter { brightness, contrast, saturation, hue } => {
                    jitter::jitter(image, [brightness, contrast, saturation, hue], rng);
                }
                Transform::TenCrop { size } => ten_crop::ten_crop(image, size, scratch)?,
                Transform::Cutout { length } => cutout::cutout(image, length, &self.blank, rng),
            }
        }
        Ok(mirror)
    }

    /// Takes a step or two for which [`Augment::part`] has asked for a part of the picture; the others are still to be taken.
    fn begin(&self, (whole, part): ([usize; 2], Window), image: &mut Image, scratch: &mut Scratch) -> &[Transform] {
        match &self.transforms[..] {
            [Transform::RandomResizedCrop { size, .. }, others @ ..] => {
                resize::resize_window(image, part, [*size; 2], scratch);
                others
            }
            all @ [Transform::Resize { shorter }, Transform::CentreCrop { size }, others @ ..] => {
                let Some(sides) = resize::middle(whole, *shorter, *size) else { return all };
                resize::resample(image, [part.top, part.left], &sides, scratch);
                others
            }
            all => all,
        }
    }
}

impl Transform {
    fn check(&self, at: &str) -> Result<()> {
        let pixels = |field: &str, found: usize| match found {
            1..=LONGEST => Ok(()),
            _ => Err(Error::config(format!("{at}.{field}"), format!("1 to {LONGEST} pixels"), found)),
        };
        let range = |field: &str, [low, high]: [f64; 2], most: f64| match 0.0 < low && low <= high && high <= most {
            true => Ok(()),
            false => Err(Error::config(format!("{at}.{field}"), format!("0 < least ≤ largest ≤ {most}"), format!("[{low}, {high}]"))),
        };
        let within = |field: &str, [least, largest]: [f64; 2], [low, high]: [f64; 2]| {
            if low <= least && least <= largest && largest <= high {
                return Ok(());
            }
            Err(Error::config(format!("{at}.{field}"), format!("{low} ≤ least ≤ largest ≤ {high}"), format!("[{least}, {largest}]")))
        };
        match *self {
            Self::Resize { shorter } => pixels("resize.shorter", shorter),
            Self::ResizeTo { height, width } => pixels("resize_to.height", height).and(pixels("resize_to.width", width)),
            Self::CentreCrop { size } => pixels("centre_crop.size", size),
            Self::PadCrop { size, pad } => {
                pixels("pad_crop.size", size)?;
                // A window that could miss the picture altogether would be a black sample with a label.
                if pad < size {
                    Ok(())
                } else {
                    Err(Error::config(format!("{at}.pad_crop.pad"), format!("less than the size of {size}"), pad))
                }
            }
            Self::RandomResizedCrop { size, area, ratio } => {
                pixels("random_resized_crop.size", size)?;
                range("random_resized_crop.area", area, 1.0)?;
                range("random_resized_crop.ratio", ratio, 100.0)
            }
            Self::Flip { p } if (0.0..=1.0).contains(&p) => Ok(()),
            Self::Flip { p } => Err(Error::config(format!("{at}.flip.p"), "a probability, 0 to 1", p)),
            Self::Rotate { degrees, .. } => within("rotate.degrees", degrees, [-360.0, 360.0]),
            Self::ColourJitter { brightness, contrast, saturation, hue } => {
                within("colour_jitter.brightness", brightness, FACTORS)?;
                within("colour_jitter.contrast", contrast, FACTORS)?;
                within("colour_jitter.saturation", saturation, FACTORS)?;
                within("colour_jitter.hue", hue, [-0.5, 0.5])
            }
            Self::TenCrop { size } => pixels("ten_crop.size", size),
            Self::Cutout { length } if length >= 2 => Ok(()),
            Self::Cutout { length } => Err(Error::config(format!("{at}.cutout.length"), "at least 2 pixels", length)),
        }
    }
}
