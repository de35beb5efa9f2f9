//! What `torch.save(model.state_dict(), file)` writes: a zip archive of one pickle, which tells names, shapes and strides, and
//! one file of numbers for each storage.
//!
//! candle reads the pickle. Its own reader of tensors takes only the layouts that are contiguous in one order or the other, while
//! a channels-last weight, a slice or a transposed matrix is saved with the strides it had; so those are followed here.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use candle::pickle::{Object, Stack};
use candle::{DType, Tensor};
use zip::ZipArchive;

use super::Entry;

/// Under which names training programs put the weights beside epochs and optimiser states.
const NESTS: [&str; 5] = ["state_dict", "model_state_dict", "model", "net", "weights"];

/// The tensors of an archive, by name.
pub(super) struct StateDict<'b> {
    archive: ZipArchive<Cursor<&'b [u8]>>,
    views: BTreeMap<String, View>,
}

/// A tensor as the pickle describes it: a view of a storage.
struct View {
    shape: Vec<usize>,
    /// In numbers, as the offset.
    strides: Vec<usize>,
    offset: usize,
    /// The class of the storage: `FloatStorage`.
    class: String,
    /// Its file in the archive.
    file: String,
}

impl<'b> StateDict<'b> {
    /// The error says what there is instead.
    pub(super) fn open(bytes: &'b [u8]) -> Result<Self, String> {
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
        let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
        let pickle = names.iter().find(|name| name.ends_with("data.pkl")).ok_or("a zip archive without data.pkl")?;
        let folder = pickle.trim_end_matches("data.pkl");
        let mut stack = Stack::empty();
        let read =
            archive.by_name(pickle).map_err(candle::Error::wrap).and_then(|file| stack.read_loop(&mut std::io::BufReader::new(file)));
        let object = read.and_then(|()| stack.finalize()).map_err(|error| format!("a pickle that cannot be read: {error}"))?;
        let Object::Dict(items) = object else { return Err("a whole Python object; save `model.state_dict()`".to_owned()) };
        let views = tensors(items, folder)?;
        Ok(Self { archive, views })
    }

    pub(super) fn entries(&self) -> BTreeMap<String, Entry> {
        let entry = |view: &View| Entry { shape: view.shape.clone(), dtype: view.dtype() };
        self.views.iter().map(|(name, view)| (name.clone(), entry(view))).collect()
    }

    /// The numbers of a tensor, in rows whatever its strides.
    pub(super) fn values(&mut self, name: &str) -> candle::Result<Tensor> {
        let view = &self.views[name];
        let dtype = view.dtype().map_err(candle::Error::Msg)?;
        let mut bytes = Vec::new();
        self.archive.by_name(&view.file).map_err(candle::Error::wrap)?.read_to_end(&mut bytes)?;
        let stored = super::numbers(&bytes, dtype)?.to_vec1::<f32>()?;
        let mut values = Vec::new();
        view.collect(0, view.offset, &stored, &mut values);
        let count: usize = view.shape.iter().product();
        if values.len() != count {
            candle::bail!("wanted {count} numbers in {}, found {}", view.file, values.len())
        }
        Tensor::from_vec(values, count, &candle::Device::Cpu)
    }
}

impl View {
    fn dtype(&self) -> Result<DType, String> {
        match self.class.as_str() {
            "FloatStorage" => Ok(DType::F32),
            "DoubleStorage" => Ok(DType::F64),
            "HalfStorage" => Ok(DType::F16),
            "BFloat16Storage" => Ok(DType::BF16),
            other => Err(other.to_owned()),
        }
    }

    /// The numbers from `at` on along the dimensions from `dim` on; those beyond the end of the storage are left out.
    fn collect(&self, dim: usize, at: usize, stored: &[f32], values: &mut Vec<f32>) {
        match (self.shape.get(dim), self.strides.get(dim)) {
            (Some(&size), Some(&stride)) => {
                for k in 0..size {
                    let Some(from) = stride.checked_mul(k).and_then(|step| at.checked_add(step)).filter(|&from| from < stored.len()) else {
                        return;
                    };
                    self.collect(dim + 1, from, stored, values);
                }
            }
            _ => values.extend(stored.get(at)),
        }
    }
}

/// The tensors among these items or, where there are none, in the dictionary among them that is called like weights.
fn tensors(items: Vec<(Object, Object)>, folder: &str) -> Result<BTreeMap<String, View>, String> {
    let (mut views, mut nested, mut others) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (key, value) in items {
        let Object::Unicode(name) = key else { continue };
        match value {
            Object::Dict(inner) => drop(nested.insert(name, inner)),
            value => match view(value, folder) {
                Some(view) => drop(views.insert(name, view)),
                None => others.push(name),
            },
        }
    }
    if !views.is_empty() {
        return Ok(views);
    }
    match NESTS.iter().find_map(|nest| nested.remove(*nest)) {
        Some(inner) => tensors(inner, folder),
        None => {
            others.extend(nested.into_keys());
            others.sort();
            Err(format!("no tensors, nor one of {} among {}", NESTS.join(", "), others.join(", ")))
        }
    }
}

/// A tensor or parameter, out of the call by which Python would rebuild it.
fn view(object: Object, folder: &str) -> Option<View> {
    let (function, arguments) = object.reduce().ok()?;
    let (_, function) = function.class().ok()?;
    let mut arguments = arguments.tuple().ok()?.into_iter();
    match function.as_str() {
        // (data, requires_grad, hooks, …)
        "_rebuild_parameter" | "_rebuild_parameter_with_state" => view(arguments.next()?, folder),
        // (storage, offset, shape, strides, …)
        "_rebuild_tensor_v2" => {
            let mut storage = arguments.next()?.persistent_load().ok()?.tuple().ok()?.into_iter();
            let offset = size(arguments.next()?)?;
            let shape = sizes(arguments.next()?)?;
            let strides = sizes(arguments.next()?)?;
            // ("storage", class, file, device, count)
            let (_, class) = storage.nth(1)?.class().ok()?;
            let file = format!("{folder}data/{}", storage.next()?.unicode().ok()?);
            (shape.len() == strides.len()).then_some(View { shape, strides, offset, class, file })
        }
        _ => None,
    }
}

fn size(object: Object) -> Option<usize> {
    object.int_or_long().ok()?.try_into().ok()
}

fn sizes(object: Object) -> Option<Vec<usize>> {
    object.tuple().ok()?.into_iter().map(size).collect()
}
