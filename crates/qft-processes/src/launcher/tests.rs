//! What is made of the variables of every launcher.

use super::*;

fn detect(variables: &[(&str, &str)]) -> Result<Option<Launch>, Error> {
    Launch::from_variables(&|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

fn found(variables: &[(&str, &str)]) -> Launch {
    detect(variables).unwrap().expect("a launcher")
}

const OPEN_MPI: [(&str, &str); 3] = [
    ("OMPI_COMM_WORLD_RANK", "2"),
    ("OMPI_COMM_WORLD_SIZE", "4"),
    ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
];
const MPICH: [(&str, &str); 3] = [("PMI_RANK", "2"), ("PMI_SIZE", "4"), ("MPI_LOCALRANKID", "1")];
const SLURM: [(&str, &str); 3] =
    [("SLURM_PROCID", "2"), ("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_LOCALID", "1")];
const TORCHRUN: [(&str, &str); 5] = [
    ("RANK", "2"),
    ("WORLD_SIZE", "4"),
    ("LOCAL_RANK", "1"),
    ("MASTER_ADDR", "node1"),
    ("MASTER_PORT", "29500"),
];

#[test]
fn every_launcher_is_known_by_its_variables() {
    let cases: [(&[(&str, &str)], Launcher); 4] = [
        (&OPEN_MPI, Launcher::OpenMpi),
        (&MPICH, Launcher::Mpich),
        (&SLURM, Launcher::Slurm),
        (&TORCHRUN, Launcher::Torchrun),
    ];
    for (variables, launcher) in cases {
        let master =
            (launcher == Launcher::Torchrun).then(|| Master { host: "node1".into(), port: 29500 });
        let expected = Launch { launcher, rank: 2, size: Some(4), local_rank: Some(1), master };
        assert_eq!(found(variables), expected);
    }
    let pmix = found(&[("PMIX_RANK", "2")]);
    assert_eq!((pmix.launcher, pmix.rank, pmix.size), (Launcher::Pmix, 2, None));
}

#[test]
fn one_process_is_alone() {
    assert_eq!(detect(&[]).unwrap(), None);
    for variables in [
        [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")],
        [("PMI_RANK", "0"), ("PMI_SIZE", "1")],
        [("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1")],
        // A shell of `salloc -n 4`, and a script that sets numbers for something else.
        [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")],
        [("RANK", "1"), ("WORLD_SIZE", "4")],
        [("OMPI_COMM_WORLD_SIZE", ""), ("PMI_SIZE", "")],
    ] {
        assert_eq!(detect(&variables).unwrap(), None, "{variables:?}");
    }
}

#[test]
fn the_inner_launcher_counts() {
    let slurm_outside = [&SLURM[..], &[("PMI_RANK", "0"), ("PMI_SIZE", "1")], &OPEN_MPI].concat();
    assert_eq!(found(&slurm_outside).launcher, Launcher::OpenMpi);
    assert_eq!(found(&[&SLURM[..], &MPICH].concat()).launcher, Launcher::Mpich);
    assert_eq!(found(&[&SLURM[..], &TORCHRUN].concat()).launcher, Launcher::Torchrun);
    assert_eq!(found(&[&SLURM[..], &[("PMIX_RANK", "2")]].concat()).size, Some(4));
    let one_of_it = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")];
    assert_eq!(found(&[&one_of_it[..], &TORCHRUN].concat()).launcher, Launcher::Torchrun);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    for (variables, text) in [
        (
            &[("PMI_RANK", "4"), ("PMI_SIZE", "4")][..],
            "PMI_RANK=4: expected less than 4; mpiexec of MPICH's kind sets it, or unset it",
        ),
        (
            &[("PMI_RANK", "x"), ("PMI_SIZE", "4")],
            "PMI_RANK=x: expected a whole number; mpiexec of MPICH's kind sets it, or unset it",
        ),
        (
            &[("OMPI_COMM_WORLD_SIZE", "4")],
            "OMPI_COMM_WORLD_RANK=: expected the number of this process; mpirun of Open MPI sets it, or unset it",
        ),
        (
            &[&TORCHRUN[..4], &[("MASTER_PORT", "70000")]].concat(),
            "MASTER_PORT=70000: expected a port, 0 to 65535; torchrun sets it, or unset it",
        ),
        (
            &TORCHRUN[..4],
            "MASTER_PORT=: expected the port at which the processes meet; torchrun sets it, or unset it",
        ),
        (
            &[&TORCHRUN[..2], &TORCHRUN[4..]].concat(),
            "MASTER_ADDR=: expected the machine of process 0; torchrun sets it, or unset it",
        ),
    ] {
        assert_eq!(detect(variables).unwrap_err().to_string(), text);
    }
}

#[test]
fn libraries_of_other_launchers_are_noticed() {
    let (open, mpich) = ("Open MPI v5.0.11 (libmpi.so.40)", "MPICH Version: 5.0.2 (libmpi.so.12)");
    assert!(Launcher::OpenMpi.may_belong_to(open) && !Launcher::OpenMpi.may_belong_to(mpich));
    assert!(Launcher::Mpich.may_belong_to(mpich) && !Launcher::Mpich.may_belong_to(open));
    assert!(Launcher::Slurm.may_belong_to(open) && Launcher::Slurm.may_belong_to(mpich));
}

/// `torchrun` listens at its port for its own processes.
#[test]
fn where_a_launcher_holds_its_port_the_next_one_is_taken() {
    let port = |port: &'static str, held: &'static str| {
        let mut variables = TORCHRUN.to_vec();
        variables[4].1 = port;
        variables.push(("TORCHELASTIC_USE_AGENT_STORE", held));
        detect(&variables).map(|launch| launch.unwrap().master.unwrap().port)
    };
    assert_eq!(port("29500", "True").unwrap(), 29501);
    assert_eq!(port("29500", "False").unwrap(), 29500);
    let error = port("65535", "True").unwrap_err().to_string();
    assert!(error.contains("MASTER_PORT=65535"), "{error}");
}
