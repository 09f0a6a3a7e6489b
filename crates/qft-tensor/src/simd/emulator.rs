//! Runs machine code of AMX-INT8 and AVX-VNNI on processors without them: for tests.
//!
//! A processor raises SIGILL at an instruction that it lacks. The handler decodes it, does what it would have
//! done to the interrupted thread's registers and memory, and resumes after it. So what a test executes are the
//! very bytes that run on a processor which has the instruction; it is slow, a microsecond each.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, of each instruction.

use std::cell::RefCell;
use std::ffi::c_int;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Instructions emulated so far in this process.
pub(super) static EMULATED: AtomicUsize = AtomicUsize::new(0);

/// Emulates, from now on, what this processor lacks.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: `action` is plain data, valid when zeroed; the handler has the signature of SA_SIGINFO.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut libc::ucontext_t) =
                on_illegal_instruction;
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()), 0);
        }
    });
}

/// One thread's tiles.
struct Tiles {
    /// Rows and bytes per row of each; absent while no configuration is loaded.
    shape: Option<[(usize, usize); 8]>,
    bytes: [[[u8; 64]; 16]; 8],
}

thread_local! {
    static TILES: RefCell<Tiles> =
        const { RefCell::new(Tiles { shape: None, bytes: [[[0; 64]; 16]; 8] }) };
}

extern "C" fn on_illegal_instruction(
    _: c_int,
    _: *mut libc::siginfo_t,
    context: *mut libc::ucontext_t,
) {
    // SAFETY: the kernel passes the interrupted thread's context; what its code points at is valid for it.
    let done =
        unsafe { Instruction::of(&mut *context).and_then(|mut instruction| instruction.step()) };
    if done.is_none() {
        eprintln!(
            "an illegal instruction that the emulator does not know or whose operands are wrong"
        );
        std::process::abort();
    }
    EMULATED.fetch_add(1, Ordering::Relaxed);
}

/// An instruction with a three-byte VEX prefix, map 0F38, and the thread that it interrupted.
struct Instruction<'a> {
    context: &'a mut libc::ucontext_t,
    /// 0 none, 1 66, 2 F3, 3 F2.
    prefix: u8,
    wide: bool,
    opcode: u8,
    /// `mod` of the ModRM byte.
    mode: u8,
    reg: usize,
    rm: usize,
    vvvv: usize,
    /// Base and displacement, and index times scale.
    address: (usize, usize),
    end: usize,
}

impl<'a> Instruction<'a> {
    /// # Safety
    ///
    /// `context` is that of a thread at an instruction.
    unsafe fn of(context: &'a mut libc::ucontext_t) -> Option<Self> {
        let registers = &context.uc_mcontext.gregs;
        let general = |i: usize| {
            use libc::*;
            let order = [
                REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8,
                REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
            ];
            registers[order[i] as usize] as usize
        };
        let start = registers[libc::REG_RIP as usize] as usize;
        let mut at = start;
        let mut next = || {
            // SAFETY: the caller's promise; no more bytes are read than the instruction has.
            let byte = unsafe { *(at as *const u8) };
            at += 1;
            byte
        };
        let (vex, extend, fields, opcode) = (next(), next(), next(), next());
        if vex != 0xc4 || extend & 0x1f != 2 || fields & 0x80 != 0 {
            return None;
        }
        let extension = |bit: u8| if extend & bit == 0 { 8 } else { 0 };
        let modrm = next();
        let (mode, low) = (modrm >> 6, usize::from(modrm & 7));
        let mut address = (0, 0);
        if mode != 3 {
            let mut base = low | extension(0x20);
            let mut relative = mode == 0 && low == 5;
            if low == 4 {
                let sib = next();
                base = usize::from(sib & 7) | extension(0x20);
                let index = usize::from(sib >> 3 & 7) | extension(0x40);
                if index != 4 {
                    address.1 = general(index) << (sib >> 6);
                }
                if mode == 0 && sib & 7 == 5 {
                    return None; // Absolute: no code here has it.
                }
                relative = false;
            }
            let displacement = match (mode, relative) {
                (1, _) => isize::from(next() as i8),
                (2, _) | (0, true) => i32::from_le_bytes([next(), next(), next(), next()]) as isize,
                _ => 0,
            };
            address.0 = if relative { at } else { general(base) }.wrapping_add_signed(displacement);
        }
        Some(Self {
            prefix: fields & 3,
            wide: fields & 4 != 0,
            opcode,
            mode,
            reg: usize::from(modrm >> 3 & 7) | extension(0x80),
            rm: low | extension(0x20),
            vvvv: usize::from(!fields >> 3 & 15),
            address,
            end: at,
            context,
        })
    }

    /// Does what the instruction does, and moves on.
    ///
    /// # Safety
    ///
    /// As for [`Self::of`].
    unsafe fn step(&mut self) -> Option<()> {
        // SAFETY: the caller's promise.
        unsafe {
            match (self.opcode, self.prefix, self.wide) {
                (0x50, 1, true) => self.vpdpbusd()?,
                (0x49 | 0x4b | 0x5e, _, false) => {
                    TILES.with_borrow_mut(|tiles| self.tiles(tiles))?;
                }
                _ => return None,
            }
        }
        self.context.uc_mcontext.gregs[libc::REG_RIP as usize] = self.end as i64;
        Some(())
    }

    /// # Safety
    ///
    /// As for [`Self::of`].
    unsafe fn tiles(&self, tiles: &mut Tiles) -> Option<()> {
        match (self.opcode, self.prefix, self.mode == 3) {
            (0x49, 0, false) => {
                // SAFETY: `ldtilecfg` reads 64 bytes.
                let config = unsafe { &*((self.address.0 + self.address.1) as *const [u8; 64]) };
                let mut shape = [(0, 0); 8];
                for (i, shape) in shape.iter_mut().enumerate() {
                    let row_bytes = u16::from_le_bytes([config[16 + 2 * i], config[17 + 2 * i]]);
                    *shape = (usize::from(config[48 + i]), usize::from(row_bytes));
                }
                let reserved = config[2..16].iter().chain(&config[32..48]).chain(&config[56..]);
                let fits = |&(rows, row_bytes): &(usize, usize)| rows <= 16 && row_bytes <= 64;
                if config[..2] != [1, 0] || reserved.into_iter().any(|&x| x != 0) {
                    return None;
                }
                tiles.shape = Some(shape).filter(|shape| shape.iter().all(fits));
                tiles.bytes = [[[0; 64]; 16]; 8];
                tiles.shape.map(|_| ())
            }
            (0x49, 0, true) => {
                tiles.shape = None;
                Some(())
            }
            (0x49, 3, true) => {
                tiles.shape?;
                tiles.bytes[self.reg] = [[0; 64]; 16];
                Some(())
            }
            (0x4b, 2 | 3, false) => {
                let (rows, row_bytes) = tiles.shape?[self.reg];
                for (i, row) in tiles.bytes[self.reg].iter_mut().enumerate() {
                    let at = self.address.0.wrapping_add(i.wrapping_mul(self.address.1));
                    // SAFETY: `tileloadd` reads, and `tilestored` writes, these rows.
                    unsafe {
                        if self.prefix == 2 {
                            if i < rows {
                                std::ptr::copy(row.as_ptr(), at as *mut u8, row_bytes);
                            }
                            continue;
                        }
                        *row = [0; 64];
                        if i < rows {
                            std::ptr::copy(at as *const u8, row.as_mut_ptr(), row_bytes);
                        }
                    }
                }
                Some(())
            }
            (0x5e, 3, true) => tdpbssd(tiles, [self.reg, self.rm, self.vvvv]),
            _ => None,
        }
    }

    /// # Safety
    ///
    /// As for [`Self::of`]; and the operands are 256 bits long, which all that is compiled here are.
    unsafe fn vpdpbusd(&mut self) -> Option<()> {
        const XMM: usize = 160;
        const FEATURES: usize = 512;
        const YMM_HIGH: usize = 576;
        let state = self.context.uc_mcontext.fpregs.cast::<u8>();
        // Both halves of a register.
        let halves = |i: usize| [XMM + 16 * i, YMM_HIGH + 16 * i];
        let read = |i: usize| {
            // SAFETY: the saved state of a thread that uses AVX has these fields.
            halves(i).map(|at| unsafe { state.add(at).cast::<[u8; 16]>().read_unaligned() })
        };
        let signed = if self.mode == 3 {
            read(self.rm)
        } else {
            // SAFETY: the operand is 32 bytes in memory.
            unsafe { *((self.address.0.wrapping_add(self.address.1)) as *const [[u8; 16]; 2]) }
        };
        let (mut sums, unsigned) = (read(self.reg), read(self.vvvv));
        for ((sums, unsigned), signed) in sums.iter_mut().zip(&unsigned).zip(&signed) {
            let groups = unsigned.as_chunks::<4>().0.iter().zip(signed.as_chunks::<4>().0);
            for (sum, (unsigned, signed)) in sums.as_chunks_mut::<4>().0.iter_mut().zip(groups) {
                let products =
                    unsigned.iter().zip(signed).map(|(&u, &s)| i32::from(u) * i32::from(s as i8));
                *sum = i32::from_le_bytes(*sum).wrapping_add(products.sum()).to_le_bytes();
            }
        }
        for (at, half) in halves(self.reg).into_iter().zip(sums) {
            // SAFETY: as above; and bits 1 and 2 say that both halves are to be restored.
            unsafe {
                state.add(at).cast::<[u8; 16]>().write_unaligned(half);
                *state.add(FEATURES) |= 6;
            }
        }
        Some(())
    }
}

/// `c (+)= a b`: four signed products to each `i32`.
fn tdpbssd(tiles: &mut Tiles, [c, a, b]: [usize; 3]) -> Option<()> {
    let shape = tiles.shape?;
    let ((rows, row_bytes), (a_rows, a_bytes), (b_rows, b_bytes)) = (shape[c], shape[a], shape[b]);
    if c == a || c == b || a == b || (rows, row_bytes, a_bytes) != (a_rows, b_bytes, 4 * b_rows) {
        return None;
    }
    let mut sums = [[0; 64]; 16];
    for (m, sums) in sums.iter_mut().enumerate().take(rows) {
        for n in 0..row_bytes / 4 {
            let at = |x: &[u8; 64], i: usize| [x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]];
            let mut sum = i32::from_le_bytes(at(&tiles.bytes[c][m], n));
            for k in 0..b_rows {
                let (a, b) = (at(&tiles.bytes[a][m], k), at(&tiles.bytes[b][k], n));
                for (a, b) in a.into_iter().zip(b) {
                    sum = sum.wrapping_add(i32::from(a as i8) * i32::from(b as i8));
                }
            }
            sums[4 * n..][..4].copy_from_slice(&sum.to_le_bytes());
        }
    }
    tiles.bytes[c] = sums;
    Some(())
}
