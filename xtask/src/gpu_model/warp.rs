//! A warp that runs a kernel: 32 threads in step, as far as their ways are the same.

use super::arithmetic::compute;
use super::block::Surroundings;
use super::opcode::{Action, Space, Type};
use super::program::{Instruction, Operand, Program, SHARED_WINDOW, Special};
use super::resources::{Counts, Resource};
use anyhow::{Result, ensure};

/// Threads of a warp.
pub(super) const WARP: usize = 32;
/// Bytes of memory that are moved together.
pub(super) const SECTOR_BYTES: u64 = 32;
/// Bytes of shared memory that are moved in a turn.
const TURN_BYTES: f64 = 128.0;
/// Words of it, each by a bank of its own.
const BANKS: u64 = 32;
/// More instructions than any warp of a kernel has.
const MOST_INSTRUCTIONS: u64 = 50_000_000;

type Lanes = [u64; WARP];

/// The state of a warp.
pub(super) struct Warp {
    registers: Vec<Lanes>,
    /// The next instruction of each thread; none once it has returned.
    next: [Option<usize>; WARP],
    first_thread: u64,
    executed: u64,
    /// Until the last product of tensor cores, and since.
    pub(super) main: Counts,
    pub(super) tail: Counts,
}

impl Warp {
    pub(super) fn new(program: &Program, index: u64, threads: u64) -> Self {
        let first_thread = index * WARP as u64;
        let next =
            std::array::from_fn(|lane| (first_thread + (lane as u64) < threads).then_some(0));
        Self {
            registers: vec![[0; WARP]; program.registers],
            next,
            first_thread,
            executed: 0,
            main: Counts::default(),
            tail: Counts::default(),
        }
    }

    /// Runs to the next barrier of the block; whether there is one.
    pub(super) fn run(&mut self, program: &Program, around: &mut Surroundings<'_>) -> Result<bool> {
        loop {
            // Threads behind wait for nobody, those ahead wait for them: ways meet again where they can first.
            let Some(at) = self.next.iter().flatten().min().copied() else { return Ok(false) };
            let on_way: [bool; WARP] = std::array::from_fn(|lane| self.next[lane] == Some(at));
            let Some(instruction) = program.instructions.get(at) else { return Ok(false) };
            for next in self.next.iter_mut().filter(|next| **next == Some(at)) {
                *next = Some(at + 1);
            }
            self.executed += 1;
            ensure!(self.executed < MOST_INSTRUCTIONS, "a warp does not end");
            let opcode = instruction.opcode;
            self.tail.add(Resource::Issue, opcode.slots.into());
            if let Some((resource, count)) = opcode.unit {
                self.tail.add(resource, count.into());
            }
            if opcode.action == Action::Barrier {
                return Ok(true);
            }
            let active = match instruction.guard {
                None => on_way,
                Some((register, value)) => std::array::from_fn(|lane| {
                    on_way[lane] && (self.registers[register][lane] != 0) == value
                }),
            };
            if active.contains(&true) {
                self.execute(instruction, &active, around)?;
            }
        }
    }

    fn execute(
        &mut self,
        instruction: &Instruction,
        active: &[bool; WARP],
        around: &mut Surroundings<'_>,
    ) -> Result<()> {
        let Instruction { opcode, operands, .. } = instruction;
        match opcode.action {
            Action::Compute(arithmetic) => {
                let mut inputs = [[0; WARP]; 4];
                for (input, operand) in inputs.iter_mut().zip(&operands[1..]) {
                    *input = self.values(operand, around);
                }
                let result = std::array::from_fn(|lane| {
                    if !active[lane] {
                        return 0;
                    }
                    compute(arithmetic, opcode.of, inputs.map(|input| input[lane]))
                });
                self.set(&operands[0], active, &result);
            }
            Action::Parameter => {
                let value = self.values(&operands[1], around);
                self.set(&operands[0], active, &value);
            }
            Action::Load(_) | Action::Store(_) | Action::Atomic(_) => {
                self.access(instruction, active, around)?;
            }
            Action::CopyAsync => self.copy_async(operands, active, around),
            Action::LoadMatrix => {
                let from = self.addresses(&operands[1], around);
                self.shared(&from, active, 16, false);
            }
            Action::Product { count, on, shared_bytes } => {
                self.product(count, on, shared_bytes, operands);
            }
            Action::ShuffleXor | Action::ShuffleFrom | Action::ShuffleUp => {
                self.shuffle(instruction, active, around);
            }
            Action::Ballot => {
                let values = self.values(&operands[1], around);
                let ballot = (0..WARP).fold(0, |bits, lane| {
                    bits | u64::from(active[lane] && values[lane] != 0) << lane
                });
                self.set(&operands[0], active, &[ballot; WARP]);
            }
            Action::ReduceMax => {
                let values = self.values(&operands[1], around);
                let largest = (0..WARP).filter(|&lane| active[lane]).map(|lane| values[lane]).max();
                self.set(&operands[0], active, &[largest.unwrap_or(0); WARP]);
            }
            Action::Branch => {
                if let Operand::Label(target) = operands[0] {
                    for lane in (0..WARP).filter(|&lane| active[lane]) {
                        self.next[lane] = Some(target);
                    }
                }
            }
            Action::Return => {
                for lane in (0..WARP).filter(|&lane| active[lane]) {
                    self.next[lane] = None;
                }
            }
            Action::Barrier | Action::Nothing => {}
        }
        Ok(())
    }

    /// A product of tensor cores, of which only the work counts.
    fn product(&mut self, count: u64, on: Resource, shared_bytes: u64, operands: &[Operand]) {
        self.tail.add(on, count as f64);
        // The first operand is in shared memory unless it is a list of registers.
        let first = match operands.get(1) {
            Some(Operand::Vector(_)) => 0,
            _ => shared_bytes / 4,
        };
        self.tail.add(Resource::Shared, (shared_bytes + first) as f64 / TURN_BYTES);
        self.main += std::mem::take(&mut self.tail);
    }

    /// Copies 16 bytes for each thread to shared memory, past its registers.
    fn copy_async(
        &mut self,
        operands: &[Operand],
        active: &[bool; WARP],
        around: &mut Surroundings<'_>,
    ) {
        let to = self.addresses(&operands[0], around);
        let from = self.addresses(&operands[1], around);
        let bytes = match operands.get(3) {
            Some(bytes) => self.values(bytes, around),
            None => self.values(&operands[2], around),
        };
        let asked: [bool; WARP] =
            std::array::from_fn(|lane| active[lane] && bytes[lane] & 0xFFFF_FFFF > 0);
        // Past the first cache.
        touch(&from, &asked, 16, false, around);
        self.shared(&to, active, 16, false);
    }

    /// Gives each thread the value of another.
    fn shuffle(
        &mut self,
        Instruction { opcode, operands, .. }: &Instruction,
        active: &[bool; WARP],
        around: &Surroundings<'_>,
    ) {
        self.tail.add(Resource::Shared, 1.0);
        let (values, by) = (self.values(&operands[1], around), self.values(&operands[2], around));
        let result = std::array::from_fn(|lane| {
            let by = by[lane] as usize;
            let from = match opcode.action {
                Action::ShuffleXor => lane ^ by,
                Action::ShuffleUp => lane.checked_sub(by).unwrap_or(lane),
                _ => by,
            };
            values[from % WARP]
        });
        self.set(&operands[0], active, &result);
    }

    /// A load, a store or an atomic operation.
    fn access(
        &mut self,
        instruction: &Instruction,
        active: &[bool; WARP],
        around: &mut Surroundings<'_>,
    ) -> Result<()> {
        let Instruction { opcode, operands, .. } = instruction;
        let (place, stored) = match opcode.action {
            Action::Load(_) => (&operands[1], None),
            Action::Store(_) => (&operands[0], Some(&operands[1])),
            _ => (&operands[1], Some(&operands[2])),
        };
        let addresses = self.addresses(place, around);
        let vector = |operand: &Operand| match operand {
            Operand::Vector(parts) => parts.clone(),
            one => vec![one.clone()],
        };
        let parts = vector(stored.unwrap_or(&operands[0]));
        let (of, is_float) = (opcode.of.bytes(), matches!(opcode.of, Type::F32 | Type::F64));
        let bytes = of * parts.len() as u64;
        let is_shared = match opcode.action {
            Action::Load(space) | Action::Store(space) | Action::Atomic(space) => match space {
                Space::Shared => true,
                Space::Global => false,
                Space::Generic => {
                    let lane = active.iter().position(|&active| active).unwrap_or(0);
                    addresses[lane] >= SHARED_WINDOW
                }
            },
            _ => false,
        };
        if is_shared {
            self.shared(&addresses, active, bytes, matches!(opcode.action, Action::Atomic(_)));
        } else {
            self.global(&addresses, active, bytes, stored.is_some(), around);
        }
        for (i, part) in parts.iter().enumerate() {
            let values = self.values(part, around);
            let mut loaded = [0; WARP];
            for lane in (0..WARP).filter(|&lane| active[lane]) {
                let address = addresses[lane] + i as u64 * of;
                loaded[lane] = match (is_shared, &opcode.action) {
                    (true, Action::Load(_)) => around.load_shared(address, of)?,
                    (true, Action::Store(_)) => {
                        around.store_shared(address, of, values[lane])?;
                        0
                    }
                    // Of atomic operations only that which gathers bits works on shared memory.
                    (true, _) => {
                        let before = around.load_shared(address, of)?;
                        around.store_shared(address, of, before | values[lane])?;
                        before
                    }
                    (false, _) => around.load_global(address, is_float, of),
                };
                if let Type::Signed(bits @ (8 | 16)) = opcode.of {
                    // Registers hold the value, whatever the size in memory.
                    let free = 64 - bits;
                    loaded[lane] = ((loaded[lane] << free) as i64 >> free) as u64;
                }
            }
            match opcode.action {
                Action::Load(_) => self.set(part, active, &loaded),
                Action::Atomic(_) => self.set(&operands[0], active, &loaded),
                _ => {}
            }
        }
        Ok(())
    }

    /// Turns that accesses of shared memory take: as many as the words that the busiest bank is asked for.
    fn shared(&mut self, addresses: &Lanes, active: &[bool; WARP], bytes: u64, atomic: bool) {
        let mut words: Vec<u64> = (0..WARP)
            .filter(|&lane| active[lane])
            .flat_map(|lane| {
                let first = addresses[lane] / 4;
                first..first + bytes.div_ceil(4)
            })
            .collect();
        if !atomic {
            words.sort_unstable();
            words.dedup();
        }
        let mut banks = [0_u32; BANKS as usize];
        words.iter().for_each(|word| banks[(word % BANKS) as usize] += 1);
        let turns = banks.iter().max().copied().unwrap_or(0);
        self.tail.add(Resource::Shared, turns.into());
    }

    /// Sectors that accesses of memory touch, and their way through the first cache.
    fn global(
        &mut self,
        addresses: &Lanes,
        active: &[bool; WARP],
        bytes: u64,
        stored: bool,
        around: &mut Surroundings<'_>,
    ) {
        let sectors = touch(addresses, active, bytes, stored, around);
        let turns = (sectors as f64 * SECTOR_BYTES as f64 / TURN_BYTES).max(1.0);
        self.tail.add(Resource::Shared, turns);
    }

    fn addresses(&self, operand: &Operand, around: &Surroundings<'_>) -> Lanes {
        match operand {
            Operand::Memory { base, offset } => {
                self.values(base, around).map(|base| base.wrapping_add(*offset))
            }
            other => self.values(other, around),
        }
    }

    fn values(&self, operand: &Operand, around: &Surroundings<'_>) -> Lanes {
        match operand {
            Operand::Register(register) => self.registers[*register],
            Operand::Immediate(value) => [*value; WARP],
            Operand::Parameter(number) => [around.parameter(*number); WARP],
            Operand::Special(Special::Thread) => {
                std::array::from_fn(|lane| self.first_thread + lane as u64)
            }
            Operand::Special(special) => [around.special(*special); WARP],
            Operand::Memory { .. } | Operand::Vector(_) | Operand::Label(_) | Operand::Nothing => {
                [0; WARP]
            }
        }
    }

    fn set(&mut self, operand: &Operand, active: &[bool; WARP], values: &Lanes) {
        if let Operand::Register(register) = operand {
            let lanes = &mut self.registers[*register];
            for lane in (0..WARP).filter(|&lane| active[lane]) {
                lanes[lane] = values[lane];
            }
        }
    }
}

/// Notes the sectors of memory that threads touch together; how many there are.
fn touch(
    addresses: &Lanes,
    active: &[bool; WARP],
    bytes: u64,
    stored: bool,
    around: &mut Surroundings<'_>,
) -> usize {
    let mut sectors: Vec<u64> = (0..WARP)
        .filter(|&lane| active[lane])
        .flat_map(|lane| {
            let (first, last) = (addresses[lane], addresses[lane] + bytes - 1);
            first / SECTOR_BYTES..last / SECTOR_BYTES + 1
        })
        .collect();
    sectors.sort_unstable();
    sectors.dedup();
    sectors.iter().for_each(|&sector| around.touch(sector, stored));
    sectors.len()
}
