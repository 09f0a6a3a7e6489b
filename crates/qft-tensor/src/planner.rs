//! A device that only counts: run a training step on it to learn its memory, exactly.

use crate::buffer::{RawBuffer, Storage};
use crate::collectives::{Exchange, Ticket};
use crate::{
    Collectives, Communicator, DType, Dequantize, Device, DeviceKind, Error, GemmF32, GemmI8,
    GemmOps, Host, Ledger, Owner, Pieces, QuantizeCols, QuantizeOps, QuantizeRows, RotateRows,
    Traffic,
};
use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

/// Allocates nothing, computes nothing, checks every shape and counts every byte.
///
/// The memory plan of a run is the ledger of a planner on which the same code ran: planned and measured
/// bytes cannot drift apart.
#[derive(Debug, Default)]
pub struct Planner {
    ledger: Arc<Ledger>,
    processes: Imagined,
    collectives: Option<Counted>,
}

/// Exchanges between devices that are planned: their buffers are those of the caller.
#[derive(Debug)]
struct Counted;

impl Collectives for Counted {
    fn start(&self, _exchange: Exchange<'_>) -> Result<Ticket, Error> {
        Ok(Ticket(0))
    }

    fn wait(&self, _ticket: Ticket) -> Result<(), Error> {
        Ok(())
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
}

/// Processes of a job that is planned: what they would exchange stays what it is.
#[derive(Debug)]
struct Imagined {
    rank: usize,
    size: usize,
}

impl Default for Imagined {
    fn default() -> Self {
        Self { rank: 0, size: 1 }
    }
}

impl Communicator for Imagined {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn max(&self, _values: &mut [u32]) -> Result<(), Error> {
        Ok(())
    }

    fn gather(&self, _bytes: &mut [u8], _parts: &[Range<usize>]) -> Result<(), Error> {
        Ok(())
    }

    fn exchange(
        &self,
        _send: &[u8],
        _send_parts: &[Range<usize>],
        _receive: &mut [u8],
        _receive_parts: &[Range<usize>],
    ) -> Result<(), Error> {
        Ok(())
    }

    fn abort(&self) -> ! {
        std::process::exit(1)
    }
}

impl Planner {
    /// Of process `rank` of `size` that share a run.
    pub fn of_process(rank: usize, size: usize) -> Self {
        Self { processes: Imagined { rank, size }, ..Self::default() }
    }

    /// The same, whose devices exchange between their memories.
    #[must_use]
    pub fn with_collectives(self) -> Self {
        Self { collectives: Some(Counted), ..self }
    }
}

#[derive(Debug)]
struct Nowhere;

impl Storage for Nowhere {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Planner
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl Device for Planner {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Planner
    }

    fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    fn host(&self) -> Result<&Host, Error> {
        Err(Error::NoHost { device: self.kind() })
    }

    fn communicator(&self) -> &dyn Communicator {
        &self.processes
    }

    fn collectives(&self) -> Option<&dyn Collectives> {
        self.collectives.as_ref().map(|counted| counted as &dyn Collectives)
    }

    fn alloc_raw(
        &self,
        owner: Owner,
        name: &'static str,
        dtype: DType,
        len: usize,
    ) -> Result<RawBuffer, Error> {
        let registration = self.ledger.register(owner, name, dtype, len);
        Ok(RawBuffer::new(Box::new(Nowhere), registration, name))
    }

    fn upload_raw(&self, _dst: &mut RawBuffer, _offset: usize, _src: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn download_raw(&self, _src: &RawBuffer, _offset: usize, dst: &mut [u8]) -> Result<(), Error> {
        dst.fill(0);
        Ok(())
    }

    fn copy_raw(
        &self,
        _dst: &mut RawBuffer,
        _dst_offset: usize,
        _src: &RawBuffer,
        _src_offset: usize,
        _bytes: usize,
    ) -> Result<(), Error> {
        Ok(())
    }

    fn copy_pieces_raw(
        &self,
        _dst: &mut RawBuffer,
        _to: Pieces,
        _src: &RawBuffer,
        _from: Pieces,
    ) -> Result<(), Error> {
        Ok(())
    }

    fn zero_raw(&self, _dst: &mut RawBuffer, _offset: usize, _bytes: usize) -> Result<(), Error> {
        Ok(())
    }

    fn synchronize(&self) -> Result<(), Error> {
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> Result<(), Error> {
        self.trim();
        self.ledger.reserve(bytes)
    }

    fn trim(&self) {
        self.ledger.release_free();
    }
}

impl GemmOps for Planner {
    fn gemm_i8(&self, op: GemmI8<'_>) -> Result<(), Error> {
        op.check().map(drop)
    }

    fn gemm_f32(&self, op: GemmF32<'_>) -> Result<(), Error> {
        op.check().map(drop)
    }
}

impl QuantizeOps for Planner {
    fn quantize_rows(&self, op: QuantizeRows<'_>) -> Result<(), Error> {
        op.check()
    }

    fn quantize_cols(&self, op: QuantizeCols<'_>) -> Result<(), Error> {
        op.check()
    }

    fn rotate_rows(&self, _op: RotateRows<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn dequantize(&self, op: Dequantize<'_>) -> Result<(), Error> {
        op.check()
    }
}
