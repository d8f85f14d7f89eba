use super::*;
use crate::storage::{Location, StoreConfig};

const DATA: &[u8] = b"1234567890";

/// An upload whose parts are 4 bytes, with two and a half of them written.
async fn upload(dir: &tempfile::TempDir, store_stall: Duration) -> Upload {
    let location = Location::File {
        root: dir.path().to_owned(),
        confined_to: None,
    };
    let store = Store::open(StoreConfig {
        part_size: 4,
        ..StoreConfig::new(location)
    })
    .unwrap();
    let job = JobIdentity {
        cluster_id: "c".into(),
        namespace: "ns".into(),
        job_name: "job".into(),
        job_uid: "u".into(),
        schedule_name: None,
        schedule_uid: None,
        store_uid: None,
        created: jiff::Timestamp::UNIX_EPOCH,
    };
    let start = jiff::Timestamp::UNIX_EPOCH;
    let mut upload = Upload::new(Arc::new(store), &job, 1, start, ".tar", store_stall);
    upload.begin().await.unwrap();
    upload.write(DATA).await.unwrap();
    upload
}

/// What the first part's task brings when the store would not take it.
fn refused(reason: StoreReason, sent: u32) -> PartDone {
    PartDone {
        object: 0,
        index: 0,
        buffer: Bytes::from_static(&DATA[..4]),
        sent,
        result: Err(StoreError {
            message: "no".into(),
            reason,
        }),
    }
}

#[tokio::test]
async fn a_part_goes_again_while_the_store_takes_any() {
    for (reason, sent, stall, again) in [
        (StoreReason::Throttled, 1, 300, true),
        (StoreReason::Throttled, 50, 300, true),
        (StoreReason::Throttled, 1, 0, false),
        (StoreReason::Corrupted, 1, 300, true),
        (StoreReason::Corrupted, MAX_SENT, 300, false),
        (StoreReason::PermissionDenied, 1, 300, false),
        (StoreReason::Failed, 1, 300, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut upload = upload(&dir, Duration::from_secs(stall)).await;
        while upload.parts.join_next().await.is_some() {}
        upload.objects[0].parts = vec![None, None];
        let noted = upload.note(Ok(refused(reason, sent)));
        assert_eq!(noted.is_ok(), again, "{reason} {sent} {stall}");
        if again {
            // The other one as it should have been, and then all of it is there.
            upload.spawn_part(0, 1, Bytes::from_static(&DATA[4..8]), 1);
            let made = upload.complete().await.unwrap();
            let stored = std::fs::read(dir.path().join(&made[0].key)).unwrap();
            assert_eq!(stored, DATA, "{reason}");
        }
    }
}
