//! Memory, before anything is loaded: what a run takes, and whether it fits; and what the processes of a job exchange.

mod arena;
pub mod bytes;
pub mod fit;
pub mod plan;
pub mod traffic;

pub use bytes::gb;
pub use fit::{Budget, Fit, Request};
pub use plan::{
    MemoryPlan, OwnerBytes, Process, RunShape, StepShape, full_batch, plan, plan_evaluation,
};
pub use traffic::StepTraffic;
