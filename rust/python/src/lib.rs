//! The border between Python and the Rust core: the module `pyrt._native`.
//!
//! Thin on purpose. Plain values come in, owned descriptors and plain data go out; nothing here
//! decides, calls back into Python or leaves a thread behind. Python owns the exceptions; `errors`
//! imports them.

mod descriptors;
mod errors;
mod layers;
mod logs;
mod lookup;
mod plan;
mod reports;
mod rootfs;
mod seccomp;
mod spawner;
mod tidying;

#[pyo3::pymodule(name = "_native", gil_used = false)]
mod native {
    #[pymodule_export]
    use crate::layers::{CancelFlag, LayerReport, extract_layer, remove_tree, write_layer};
    #[pymodule_export]
    use crate::logs::{LogReader, watch_folder};
    #[pymodule_export]
    use crate::lookup::{read_image_file, stamps};
    #[pymodule_export]
    use crate::plan::{
        Detached, Plan, Sample, Step, Template, compile, compile_command, compile_exec, failure, host, stdio_message,
    };
    #[pymodule_export]
    use crate::reports::{Attached, Exited, Failed, Started, ask, parse_report};
    #[pymodule_export]
    use crate::rootfs::{limits, mount_layers, open_in_root, set_file_ids};
    #[pymodule_export]
    use crate::seccomp::compile_seccomp;
    #[pymodule_export]
    use crate::spawner::launch_spawner;
    #[pymodule_export]
    use crate::tidying::{make_upper, tidy};
}
