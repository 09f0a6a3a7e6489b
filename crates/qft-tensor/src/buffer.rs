//! Typed memory of a device, and views into it.

use crate::ledger::Registration;
use crate::{Device, DeviceKind, Element, Error, Owner};
use bytemuck::{Pod, Zeroable};
use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

/// Memory of some device behind a [`RawBuffer`]; each device knows its own type.
pub trait Storage: Any + Send + Sync + fmt::Debug {
    /// Where the memory is.
    fn kind(&self) -> DeviceKind;
    /// For the owning device to get at its own type.
    fn as_any(&self) -> &dyn Any;
    /// For the owning device to get at its own type.
    fn as_any_mut(&mut self) -> &mut dyn Any;
    /// The bytes, if the host can address them.
    fn host(&self) -> Option<&[u8]> {
        None
    }
    /// The bytes, if the host can address them.
    fn host_mut(&mut self) -> Option<&mut [u8]> {
        None
    }
}

/// An untyped block of device memory. Users hold a [`Buffer`].
#[derive(Debug)]
pub struct RawBuffer {
    // Declared before `registration`: the memory goes back first, then it leaves the ledger.
    storage: Box<dyn Storage>,
    registration: Registration,
    name: &'static str,
}

impl RawBuffer {
    /// Made by devices only.
    pub fn new(storage: Box<dyn Storage>, registration: Registration, name: &'static str) -> Self {
        Self { storage, registration, name }
    }

    /// The device's own memory.
    pub fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// The device's own memory.
    pub fn storage_mut(&mut self) -> &mut dyn Storage {
        &mut *self.storage
    }

    /// The name given at allocation.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What the memory is for.
    pub fn owner(&self) -> Owner {
        self.registration.owner()
    }
}

/// `len` elements of type `T` on some device, registered in the device's ledger until dropped.
#[derive(Debug)]
pub struct Buffer<T: Element> {
    raw: RawBuffer,
    len: usize,
    _element: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    /// Allocates `len` elements; their values are unspecified.
    ///
    /// Errors: [`Error::OutOfMemory`].
    pub fn alloc(
        device: &dyn Device,
        owner: Owner,
        name: &'static str,
        len: usize,
    ) -> Result<Self, Error> {
        let raw = device.alloc_raw(owner, name, T::DTYPE, len)?;
        Ok(Self { raw, len, _element: PhantomData })
    }

    /// Allocates `len` elements of value zero.
    pub fn zeros(
        device: &dyn Device,
        owner: Owner,
        name: &'static str,
        len: usize,
    ) -> Result<Self, Error> {
        let mut buffer = Self::alloc(device, owner, name, len)?;
        device.zero_raw(&mut buffer.raw, 0, len * T::DTYPE.size_bytes())?;
        Ok(buffer)
    }

    /// Allocates and fills from host memory.
    pub fn from_host(
        device: &dyn Device,
        owner: Owner,
        name: &'static str,
        values: &[T],
    ) -> Result<Self, Error> {
        let mut buffer = Self::alloc(device, owner, name, values.len())?;
        buffer.upload(device, 0, values)?;
        Ok(buffer)
    }

    /// Copies `values` to elements `start..start + values.len()`.
    pub fn upload(&mut self, device: &dyn Device, start: usize, values: &[T]) -> Result<(), Error> {
        bounds("upload", start, values.len(), self.len)?;
        device.upload_raw(
            &mut self.raw,
            start * T::DTYPE.size_bytes(),
            bytemuck::cast_slice(values),
        )
    }

    /// Copies elements `start..start + out.len()` to the host.
    pub fn download(&self, device: &dyn Device, start: usize, out: &mut [T]) -> Result<(), Error> {
        bounds("download", start, out.len(), self.len)?;
        device.download_raw(&self.raw, start * T::DTYPE.size_bytes(), bytemuck::cast_slice_mut(out))
    }

    /// All elements, copied to the host.
    pub fn to_vec(&self, device: &dyn Device) -> Result<Vec<T>, Error> {
        let mut out = vec![T::zeroed(); self.len];
        self.download(device, 0, &mut out)?;
        Ok(out)
    }

    /// Sets all elements to zero.
    pub fn fill_zero(&mut self, device: &dyn Device) -> Result<(), Error> {
        let bytes = self.len * T::DTYPE.size_bytes();
        device.zero_raw(&mut self.raw, 0, bytes)
    }

    /// Copies elements `src_range` of `src` to `start..` of this buffer, on the device.
    pub fn copy_from(
        &mut self,
        device: &dyn Device,
        start: usize,
        src: &Self,
        src_range: Range<usize>,
    ) -> Result<(), Error> {
        let len = src_range.len();
        bounds("copy_from", start, len, self.len)?;
        bounds("copy_from", src_range.start, len, src.len)?;
        let size = T::DTYPE.size_bytes();
        device.copy_raw(&mut self.raw, start * size, &src.raw, src_range.start * size, len * size)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The name given at allocation.
    pub fn name(&self) -> &'static str {
        self.raw.name()
    }

    /// The untyped block, for devices.
    pub fn raw(&self) -> &RawBuffer {
        &self.raw
    }

    /// The untyped block, for devices.
    pub fn raw_mut(&mut self) -> &mut RawBuffer {
        &mut self.raw
    }

    /// The elements in host memory.
    ///
    /// Errors: [`Error::WrongDevice`] if the buffer is not in host memory.
    pub fn host(&self) -> Result<&[T], Error> {
        let (name, kind) = (self.raw.name, self.raw.storage.kind());
        let bytes = self.raw.storage.host().ok_or(Error::WrongDevice {
            op: "host",
            name,
            expected: DeviceKind::Cpu,
            got: kind,
        })?;
        Ok(&bytemuck::cast_slice(bytes)[..self.len])
    }

    /// The elements in host memory, for writing.
    ///
    /// Errors: [`Error::WrongDevice`] if the buffer is not in host memory.
    pub fn host_mut(&mut self) -> Result<&mut [T], Error> {
        let (name, kind, len) = (self.raw.name, self.raw.storage.kind(), self.len);
        let bytes = self.raw.storage.host_mut().ok_or(Error::WrongDevice {
            op: "host_mut",
            name,
            expected: DeviceKind::Cpu,
            got: kind,
        })?;
        Ok(&mut bytemuck::cast_slice_mut(bytes)[..len])
    }

    /// The whole buffer as a span.
    pub fn all(&self) -> Span<'_, T> {
        Span { buffer: self, start: 0, len: self.len }
    }

    /// A range of elements.
    ///
    /// Errors: [`Error::OutOfBounds`].
    pub fn span(&self, range: Range<usize>) -> Result<Span<'_, T>, Error> {
        bounds("span", range.start, range.len(), self.len)?;
        Ok(Span { buffer: self, start: range.start, len: range.len() })
    }

    /// The buffer as a dense row-major matrix `[rows, cols]`.
    ///
    /// Errors: [`Error::OutOfBounds`] if it holds fewer elements.
    pub fn mat(&self, rows: usize, cols: usize) -> Result<Mat<'_, T>, Error> {
        bounds("mat", 0, rows.saturating_mul(cols), self.len)?;
        Ok(Mat { buffer: self, start: 0, rows, cols, stride: cols })
    }

    /// The buffer as a dense row-major matrix `[rows, cols]` to write to.
    ///
    /// Errors: [`Error::OutOfBounds`] if it holds fewer elements.
    pub fn mat_mut(&mut self, rows: usize, cols: usize) -> Result<MatMut<'_, T>, Error> {
        bounds("mat_mut", 0, rows.saturating_mul(cols), self.len)?;
        Ok(MatMut { buffer: self, start: 0, rows, cols, stride: cols })
    }
}

fn bounds(op: &'static str, start: usize, len: usize, have: usize) -> Result<(), Error> {
    match start.checked_add(len) {
        Some(end) if end <= have => Ok(()),
        _ => Err(Error::OutOfBounds { op, start, end: start.saturating_add(len), len: have }),
    }
}

/// A contiguous range of a buffer.
#[derive(Debug)]
pub struct Span<'a, T: Element> {
    buffer: &'a Buffer<T>,
    start: usize,
    len: usize,
}

impl<T: Element> Clone for Span<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Element> Copy for Span<'_, T> {}

impl<'a, T: Element> Span<'a, T> {
    /// The buffer behind the span.
    pub fn buffer(&self) -> &'a Buffer<T> {
        self.buffer
    }

    /// First element within the buffer.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in host memory.
    pub fn host(&self) -> Result<&'a [T], Error> {
        Ok(&self.buffer.host()?[self.start..self.start + self.len])
    }
}

/// A row-major matrix inside a buffer: row `r` starts at `start + r * stride`.
#[derive(Debug)]
pub struct Mat<'a, T: Element> {
    buffer: &'a Buffer<T>,
    start: usize,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<T: Element> Clone for Mat<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Element> Copy for Mat<'_, T> {}

impl<'a, T: Element> Mat<'a, T> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements between the starts of two rows.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// First element within the buffer.
    pub fn start(&self) -> usize {
        self.start
    }

    /// The buffer behind the view.
    pub fn buffer(&self) -> &'a Buffer<T> {
        self.buffer
    }

    /// Some of the rows.
    ///
    /// Errors: [`Error::OutOfBounds`].
    pub fn row_range(&self, rows: Range<usize>) -> Result<Self, Error> {
        bounds("row_range", rows.start, rows.len(), self.rows)?;
        Ok(Self { start: self.start + rows.start * self.stride, rows: rows.len(), ..*self })
    }

    /// Some of the columns.
    ///
    /// Errors: [`Error::OutOfBounds`].
    pub fn col_range(&self, cols: Range<usize>) -> Result<Self, Error> {
        bounds("col_range", cols.start, cols.len(), self.cols)?;
        Ok(Self { start: self.start + cols.start, cols: cols.len(), ..*self })
    }

    /// The elements in host memory, from the first row's start to the last row's end.
    pub fn host(&self) -> Result<&'a [T], Error> {
        let all = self.buffer.host()?;
        if self.rows == 0 {
            return Ok(&[]);
        }
        let len = (self.rows - 1) * self.stride + self.cols;
        Ok(&all[self.start..self.start + len])
    }
}

/// A [`Mat`] to write to.
#[derive(Debug)]
pub struct MatMut<'a, T: Element> {
    buffer: &'a mut Buffer<T>,
    start: usize,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a, T: Element> MatMut<'a, T> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements between the starts of two rows.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// First element within the buffer.
    pub fn start(&self) -> usize {
        self.start
    }

    /// The same view, for a shorter time.
    pub fn reborrow(&mut self) -> MatMut<'_, T> {
        let MatMut { start, rows, cols, stride, .. } = *self;
        MatMut { buffer: self.buffer, start, rows, cols, stride }
    }

    /// The buffer behind the view.
    pub fn buffer_mut(&mut self) -> &mut Buffer<T> {
        self.buffer
    }

    /// Some of the rows.
    ///
    /// Errors: [`Error::OutOfBounds`].
    pub fn row_range(self, rows: Range<usize>) -> Result<Self, Error> {
        bounds("row_range", rows.start, rows.len(), self.rows)?;
        Ok(Self { start: self.start + rows.start * self.stride, rows: rows.len(), ..self })
    }

    /// Some of the columns.
    ///
    /// Errors: [`Error::OutOfBounds`].
    pub fn col_range(self, cols: Range<usize>) -> Result<Self, Error> {
        bounds("col_range", cols.start, cols.len(), self.cols)?;
        Ok(Self { start: self.start + cols.start, cols: cols.len(), ..self })
    }

    /// The elements in host memory, from the first row's start to the last row's end.
    pub fn host_mut(&mut self) -> Result<&mut [T], Error> {
        let (start, rows, cols, stride) = (self.start, self.rows, self.cols, self.stride);
        let all = self.buffer.host_mut()?;
        if rows == 0 {
            return Ok(&mut []);
        }
        let len = (rows - 1) * stride + cols;
        Ok(&mut all[start..start + len])
    }
}

/// 64 bytes on a 64-byte boundary: one cache line.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct CacheLine([u8; 64]);
