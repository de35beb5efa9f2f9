//! Pictures of one size, all in memory: what the small public sets are once read.

use crate::{Dataset, Image, Info, Picture, Result, Sample, Split};

/// A data set held in memory; `get` copies one picture out of it.
#[derive(Debug, Clone)]
pub struct Memory {
    info: Info,
    shape: [usize; 3],
    parts: Vec<Part>,
}

/// One split of a [`Memory`].
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// `train` or `test`.
    pub name: String,
    /// `n × channels × height × width` bytes: channels first, as CIFAR's files and tensors have them.
    pub planes: Vec<u8>,
    /// `n` class indices.
    pub labels: Vec<u32>,
    /// The files the samples came from, in order, each with its number of samples: for messages.
    pub files: Vec<(String, usize)>,
}

impl Memory {
    /// Pictures of `[channels, height, width]`.
    ///
    /// # Panics
    /// When a part's bytes, labels or files do not agree on the number of samples, or a label names no class.
    pub fn new(name: &str, classes: Vec<String>, shape: [usize; 3], parts: Vec<Part>) -> Self {
        for part in &parts {
            let len = part.labels.len();
            assert_eq!(part.planes.len(), len * shape.iter().product::<usize>(), "{name}: bytes of {len} pictures of {shape:?}");
            assert_eq!(part.files.iter().map(|(_, records)| records).sum::<usize>(), len, "{name}: records of all files");
            assert!(part.labels.iter().all(|&label| (label as usize) < classes.len()), "{name}: labels below {}", classes.len());
        }
        let splits = parts.iter().map(|part| Split { name: part.name.clone(), len: part.labels.len() }).collect();
        Self { info: Info { name: name.to_owned(), classes, splits }, shape, parts }
    }
}

impl Part {
    /// `file#record`, counted from 0 within the file.
    fn origin(&self, index: usize) -> String {
        let mut record = index;
        for (file, records) in &self.files {
            if record < *records {
                return format!("{file}#{record}");
            }
            record -= records;
        }
        unreachable!("`new` checked that the files hold all samples")
    }
}

impl Dataset for Memory {
    fn info(&self) -> &Info {
        &self.info
    }

    fn get(&self, split: usize, index: usize) -> Result<Sample> {
        let part = &self.parts[split];
        let [channels, height, width] = self.shape;
        let bytes = channels * height * width;
        let planes = &part.planes[index * bytes..(index + 1) * bytes];
        let picture = Picture::Raw(Image::from_planes(height, width, channels, planes));
        Ok(Sample { picture, label: part.labels[index], name: part.origin(index) })
    }
}
