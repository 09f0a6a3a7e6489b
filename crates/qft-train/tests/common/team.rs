//! Processes as threads: each is a member of a team, and exchanges by memory.

use qft_tensor::{Background, Communicator, Error};
use std::ops::Range;
use std::sync::{Arc, Barrier, Mutex};

/// What a team has in common.
#[derive(Debug)]
struct Table {
    /// What each member brings to the call that is under way.
    brought: Mutex<Vec<Vec<u8>>>,
    barrier: Barrier,
}

/// A member of a team.
#[derive(Debug)]
struct Member {
    rank: usize,
    size: usize,
    table: Arc<Table>,
    background: Option<Background>,
}

impl Member {
    /// Lets `f` see what all have brought.
    fn meet<R>(&self, own: &[u8], f: impl FnOnce(&[Vec<u8>]) -> R) -> R {
        self.table.brought.lock().unwrap()[self.rank] = own.to_vec();
        self.table.barrier.wait();
        let all = self.table.brought.lock().unwrap().clone();
        self.table.barrier.wait();
        f(&all)
    }
}

impl Communicator for Member {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn max(&self, values: &mut [u32]) -> Result<(), Error> {
        let own: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        self.meet(&own, |all| {
            for brought in all {
                for (value, bytes) in values.iter_mut().zip(brought.chunks_exact(4)) {
                    *value = (*value).max(u32::from_ne_bytes(bytes.try_into().unwrap()));
                }
            }
        });
        Ok(())
    }

    fn gather(&self, bytes: &mut [u8], parts: &[Range<usize>]) -> Result<(), Error> {
        let own = bytes[parts[self.rank].clone()].to_vec();
        self.meet(&own, |all| {
            for (part, brought) in parts.iter().zip(all) {
                bytes[part.clone()].copy_from_slice(brought);
            }
        });
        Ok(())
    }

    fn exchange(
        &self,
        send: &[u8],
        send_parts: &[Range<usize>],
        receive: &mut [u8],
        receive_parts: &[Range<usize>],
    ) -> Result<(), Error> {
        let starts: Vec<u8> = send_parts
            .iter()
            .flat_map(|part| [part.start, part.end])
            .flat_map(usize::to_ne_bytes)
            .chain(send.iter().copied())
            .collect();
        let head = 2 * size_of::<usize>() * self.size;
        self.meet(&starts, |all| {
            for (part, brought) in receive_parts.iter().zip(all) {
                let word = |i: usize| {
                    let bytes = &brought[i * size_of::<usize>()..][..size_of::<usize>()];
                    usize::from_ne_bytes(bytes.try_into().unwrap())
                };
                let sent = word(2 * self.rank)..word(2 * self.rank + 1);
                receive[part.clone()].copy_from_slice(&brought[head..][sent]);
            }
        });
        Ok(())
    }

    fn background(&self) -> Option<&Background> {
        self.background.as_ref()
    }

    fn abort(&self) -> ! {
        std::process::abort()
    }
}

/// Lets `work` be done by `size` members at the same time; what each of them makes.
pub(crate) fn team<R: Send>(
    size: usize,
    work: impl Fn(Arc<dyn Communicator>) -> R + Sync,
) -> Vec<R> {
    let table = || {
        let brought = Mutex::new(vec![Vec::new(); size]);
        Arc::new(Table { brought, barrier: Barrier::new(size) })
    };
    let (table, behind) = (table(), table());
    std::thread::scope(|scope| {
        let members: Vec<_> = (0..size)
            .map(|rank| {
                let line = Member { rank, size, table: Arc::clone(&behind), background: None };
                let background = Some(Background::over(Arc::new(line), Arc::default()).unwrap());
                let member = Member { rank, size, table: Arc::clone(&table), background };
                let work = &work;
                scope.spawn(move || work(Arc::new(member)))
            })
            .collect();
        members.into_iter().map(|member| member.join().unwrap()).collect()
    })
}
