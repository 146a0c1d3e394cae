//! The methods as a guest calls them, without a guest.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use toolkeep_core::capability::{Access, FileGrant, PathGlobs};
use toolkeep_core::event::Answer;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    Descriptor, DescriptorFlags, DescriptorType, ErrorCode, Host as _, HostDescriptor, HostDirectoryEntryStream,
    NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi_io::streams::{DynInputStream, DynOutputStream, Error, StreamError};

use super::FilesView;
use crate::recording::Recorder;
use crate::stage::{Mount, Spool, Stage, StageError, StageLimits};
use crate::workspace::WorkspaceRoot;

static NEXT: AtomicU64 = AtomicU64::new(0);

struct Guest {
    path: PathBuf,
    table: ResourceTable,
    stage: Stage,
    recorder: Recorder,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ignored = std::fs::remove_dir_all(&self.path);
    }
}

impl Guest {
    fn new(bytes: u64) -> Self {
        let name = format!("toolkeep-files-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("temporary directory");
        std::fs::write(path.join("a.txt"), "hello").expect("file");
        let workspace: toolkeep_core::id::WorkspaceName = "books".parse().expect("name");
        let grant = FileGrant {
            workspace: workspace.clone(),
            access: Access::Write,
            read: PathGlobs::everything(),
            write: PathGlobs::everything(),
            sensitive: Vec::new(),
        };
        let root = Arc::new(WorkspaceRoot::open(workspace, &path).expect("root"));
        let directory = OwnedFd::from(File::open(std::env::temp_dir()).expect("directory"));
        let limits = StageLimits { bytes, effects: 100 };
        let stage = Stage::new(vec![Mount { root: root.into(), grant }], limits, Spool::new(Arc::new(directory)));
        let stage = stage.with_wall_clock(1_500_000_001);
        Self {
            path,
            table: ResourceTable::new(),
            stage,
            recorder: Recorder::new(1 << 20, toolkeep_core::event::Depth::Full),
        }
    }

    fn view(&mut self) -> FilesView<'_> {
        FilesView { table: &mut self.table, stage: Some(&self.stage), recorder: &self.recorder }
    }

    fn root(&mut self) -> Resource<Descriptor> {
        let mut directories = self.view().get_directories().expect("preopens");
        let (descriptor, name) = directories.pop().expect("one");
        assert_eq!(name, "/books");
        descriptor
    }

    async fn open(
        &mut self,
        path: &str,
        open: OpenFlags,
        flags: DescriptorFlags,
    ) -> Result<Resource<Descriptor>, ErrorCode> {
        let root = self.root();
        let opened = self.view().open_at(root, PathFlags::empty(), path.to_owned(), open, flags).await;
        opened.map_err(|error| error.downcast().expect("a code"))
    }
}

fn borrowed<T: 'static>(resource: &Resource<T>) -> Resource<T> {
    Resource::new_borrow(resource.rep())
}

#[tokio::test]
async fn a_file_is_read_and_written_through_descriptors_and_streams() {
    let mut guest = Guest::new(1 << 20);
    let file = guest.open("a.txt", OpenFlags::empty(), DescriptorFlags::READ).await.expect("open");
    let (bytes, end) = guest.view().read(borrowed(&file), u64::MAX, 1).await.expect("read");
    assert_eq!((bytes.as_slice(), end), (b"ello".as_slice(), false));
    assert_eq!(guest.view().read(borrowed(&file), 9, 5).await.expect("end"), (Vec::new(), true));
    let stream = guest.view().read_via_stream(borrowed(&file), 2).expect("stream");
    let stream: &mut DynInputStream = guest.table.get_mut(&stream).expect("stream");
    assert_eq!(stream.read(0).expect("nothing asked"), "");
    assert_eq!(stream.read(2).expect("two"), "ll");
    assert_eq!(stream.read(usize::MAX).expect("rest"), "o");
    assert!(matches!(stream.read(1), Err(StreamError::Closed)));
    let denied = guest.view().write_via_stream(borrowed(&file), 0).map(|_| ());
    assert_eq!(denied.expect_err("read only").downcast().ok(), Some(ErrorCode::BadDescriptor));

    let out = guest.open("b.txt", OpenFlags::CREATE, DescriptorFlags::WRITE).await.expect("create");
    assert_eq!(guest.view().write(borrowed(&out), vec![b'x'; 70_000], 0).await.expect("write"), 64 * 1024);
    guest.view().set_size(borrowed(&out), 1).await.expect("size");
    let stream = guest.view().append_via_stream(borrowed(&out)).expect("stream");
    let stream: &mut DynOutputStream = guest.table.get_mut(&stream).expect("stream");
    assert_eq!(stream.check_write().expect("permit"), 64 * 1024);
    stream.write("yz".into()).expect("write");
    stream.flush().expect("flush");
    assert_eq!(guest.view().stat(borrowed(&out)).await.expect("stat").size, 3);
    HostDescriptor::drop(&mut guest.view(), file).expect("drop");
    let staged = guest.stage.clone().seal().expect("seal");
    assert_eq!(staged.effects.len(), 1);
    assert!(!guest.path.join("b.txt").exists(), "nothing happened yet");
}

#[tokio::test]
async fn t_r6_a_write_without_or_beyond_its_permit_traps() {
    let mut guest = Guest::new(1 << 30);
    let out = guest.open("b", OpenFlags::CREATE, DescriptorFlags::WRITE).await.expect("create");
    let stream = guest.view().write_via_stream(borrowed(&out), 0).expect("stream");
    let stream: &mut DynOutputStream = guest.table.get_mut(&stream).expect("stream");
    assert!(matches!(stream.write("x".into()), Err(StreamError::Trap(_))), "no permit yet");
    let permit = stream.check_write().expect("permit");
    assert!(matches!(stream.write(vec![0; permit + 1].into()), Err(StreamError::Trap(_))));
    stream.write(vec![0; permit].into()).expect("exactly the permit");
    assert!(matches!(stream.write("x".into()), Err(StreamError::Trap(_))), "used up");
}

#[tokio::test]
async fn t_f7_a_full_stage_traps_and_is_no_answer() {
    let mut guest = Guest::new(10);
    let out = guest.open("b", OpenFlags::CREATE, DescriptorFlags::WRITE).await.expect("create");
    let error = guest.view().set_size(borrowed(&out), 1 << 63).await.expect_err("too large");
    assert!(error.downcast_ref().is_none(), "no code");
    let full = Some(StageError::Full { what: "bytes", limit: 10 });
    assert_eq!(guest.stage.failure(), full);
    let stream = guest.view().append_via_stream(borrowed(&out)).expect("stream");
    let stream: &mut DynOutputStream = guest.table.get_mut(&stream).expect("stream");
    stream.check_write().expect("permit");
    match stream.write("x".into()) {
        Err(StreamError::Trap(error)) => assert_eq!(error.downcast_ref::<StageError>(), full.as_ref()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn listings_links_times_and_errors_use_the_words_of_the_interface() {
    let mut guest = Guest::new(1 << 20);
    std::os::unix::fs::symlink("a.txt", guest.path.join("link")).expect("link");
    let root = guest.root();
    guest.view().create_directory_at(borrowed(&root), "d".to_owned()).await.expect("mkdir");
    let listing = guest.view().read_directory(borrowed(&root)).await.expect("list");
    let mut names = Vec::new();
    while let Some(entry) = guest.view().read_directory_entry(Resource::new_borrow(listing.rep())).await.expect("next")
    {
        names.push((entry.name, entry.type_));
    }
    let expect = [
        ("a.txt", DescriptorType::RegularFile),
        ("d", DescriptorType::Directory),
        ("link", DescriptorType::SymbolicLink),
    ];
    assert_eq!(names, expect.map(|(name, kind)| (name.to_owned(), kind)));
    HostDirectoryEntryStream::drop(&mut guest.view(), listing).expect("drop");
    assert_eq!(guest.view().readlink_at(borrowed(&root), "link".to_owned()).await.expect("target"), "a.txt");
    let code = |error: wasmtime_wasi::p2::FsError| error.downcast().expect("a code");
    for (path, expect) in [("none", ErrorCode::NoEntry), ("../x", ErrorCode::NotPermitted), ("d/", ErrorCode::Invalid)]
    {
        let answer = guest.view().stat_at(borrowed(&root), PathFlags::empty(), path.to_owned()).await;
        assert_eq!(answer.map(|_| ()).map_err(code), Err(expect), "{path}");
    }
    let link = guest.view().symlink_at(borrowed(&root), "x".to_owned(), "y".to_owned()).await;
    assert_eq!(link.map_err(code), Err(ErrorCode::Unsupported));
    let to = borrowed(&root);
    let link = guest.view().link_at(borrowed(&root), PathFlags::empty(), "a.txt".to_owned(), to, "y".to_owned()).await;
    assert_eq!(link.map_err(code), Err(ErrorCode::Unsupported));

    let mut set = async |seconds, nanoseconds| {
        let time = NewTimestamp::Timestamp(Datetime { seconds, nanoseconds });
        let (root, path) = (borrowed(&root), "a.txt".to_owned());
        guest.view().set_times_at(root, PathFlags::empty(), path, NewTimestamp::NoChange, time).await.map_err(code)
    };
    assert_eq!(set(u64::MAX, u32::MAX).await, Err(ErrorCode::Overflow));
    assert_eq!(set(u64::MAX / 1_000_000_000, 0).await, Err(ErrorCode::Overflow));
    assert_eq!(set(1, 5).await, Ok(()));
    let stat = guest.view().stat_at(borrowed(&root), PathFlags::empty(), "a.txt".to_owned()).await.expect("stat");
    let time = stat.data_modification_timestamp.expect("time");
    assert_eq!((time.seconds, time.nanoseconds), (1, 5));
}

#[tokio::test]
async fn r04_every_call_leaves_an_event_with_its_answer() {
    let mut guest = Guest::new(1 << 20);
    let file = guest.open("a.txt", OpenFlags::empty(), DescriptorFlags::READ).await.expect("open");
    guest.view().read(borrowed(&file), 2, 0).await.expect("read");
    assert_eq!(
        guest.open("none", OpenFlags::empty(), DescriptorFlags::READ).await.map(|_| ()),
        Err(ErrorCode::NoEntry)
    );
    let events = guest.recorder.events();
    let shown: Vec<(&str, &str, String)> = events
        .iter()
        .map(|event| {
            let answer = match &event.answer {
                Answer::Bytes { sha256, .. } => sha256.to_hex(),
                Answer::Value(text) | Answer::Error(text) => text.clone(),
                Answer::Done => "done".to_owned(),
            };
            (event.import.rsplit_once('#').expect("name").1, event.about.as_str(), answer)
        })
        .collect();
    let read = toolkeep_core::digest::Digest::of(b"he").to_hex();
    let expect = [
        ("get-directories", "", "/books"),
        ("descriptor.open-at", "#0 a.txt", "#1"),
        ("descriptor.read", "#1 0", read.as_str()),
        ("get-directories", "", "/books"),
        ("descriptor.open-at", "#0 none", "no-entry"),
    ];
    assert_eq!(shown, expect.map(|(import, about, answer)| (import, about, answer.to_owned())));
}

#[tokio::test]
async fn identity_is_stable_through_copy_up_and_rename() {
    let mut guest = Guest::new(1 << 20);
    let root = guest.root();
    let hash = async |guest: &mut Guest, path: &str| {
        let root = guest.root();
        let hash = guest.view().metadata_hash_at(root, PathFlags::empty(), path.to_owned()).await.expect("hash");
        (hash.lower, hash.upper)
    };
    let before = hash(&mut guest, "a.txt").await;
    let file =
        guest.open("a.txt", OpenFlags::empty(), DescriptorFlags::READ | DescriptorFlags::WRITE).await.expect("open");
    guest.view().write(borrowed(&file), b"x".to_vec(), 0).await.expect("write");
    let to = borrowed(&root);
    guest.view().rename_at(borrowed(&root), "a.txt".to_owned(), to, "b.txt".to_owned()).await.expect("rename");
    assert_eq!(hash(&mut guest, "b.txt").await, before);
    let own = guest.view().metadata_hash(borrowed(&file)).await.expect("hash");
    assert_eq!((own.lower, own.upper), before);
    assert!(!guest.view().is_same_object(borrowed(&file), borrowed(&root)).await.expect("compare"));
    let error = guest.table.push(Error::from(ErrorCode::Loop)).expect("push");
    assert_eq!(guest.view().filesystem_error_code(error).expect("code"), Some(ErrorCode::Loop));
}
