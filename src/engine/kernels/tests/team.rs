use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::super::Team;

#[test]
fn every_item_is_worked_on_once_by_its_index() {
    for threads in [1, 2, 3, 5] {
        let mut team = Team::new(threads).expect("threads");
        for length in [0, 1, 2, 3, 7, 64] {
            let mut items = vec![0; length];
            team.each(&mut items, |index, item| *item += index + 1);
            let expected: Vec<usize> = (1..=length).collect();
            assert_eq!(items, expected, "{length} items on {threads} threads");
        }
    }
}

#[test]
fn members_take_contiguous_halves_on_their_own_threads() {
    let mut team = Team::new(2).expect("threads");
    let mut names = vec![None; 6];
    team.each(&mut names, |_, name| *name = thread::current().name().map(str::to_owned));
    assert_eq!(names[3..], vec![Some("tenantry-compute-1".to_owned()); 3]);
    assert_eq!(names[..3], vec![thread::current().name().map(str::to_owned); 3]);
}

#[test]
fn many_forks_hot_and_after_sleep_all_arrive() {
    let mut team = Team::new(2).expect("threads");
    let mut items = [0u64; 2];
    for round in 0..20_000u64 {
        team.each(&mut items, |_, item| *item += 1);
        if round % 4_000 == 0 {
            thread::sleep(Duration::from_millis(3));
        }
    }
    assert_eq!(items, [20_000, 20_000]);
}

#[test]
fn panic_on_any_member_reaches_the_caller_after_all_have_finished() {
    let mut team = Team::new(3).expect("threads");
    for guilty in 0..3 {
        let finished = AtomicUsize::new(0);
        let caught = panic::catch_unwind(AssertUnwindSafe(|| {
            team.each(&mut [0, 1, 2], |index, _| {
                if index == guilty {
                    panic!("member {index} fails");
                }
                thread::sleep(Duration::from_millis(5));
                finished.fetch_add(1, Ordering::Relaxed);
            });
        }));
        let message = caught.expect_err("the panic goes on");
        assert_eq!(message.downcast_ref::<String>(), Some(&format!("member {guilty} fails")));
        assert_eq!(finished.load(Ordering::Relaxed), 2);
    }
    let mut items = [0; 3];
    team.each(&mut items, |_, item| *item = 1);
    assert_eq!(items, [1; 3], "the team is still of use");
}

#[test]
fn panic_on_all_members_reaches_the_caller() {
    let mut team = Team::new(3).expect("threads");
    for _ in 0..50 {
        let caught = panic::catch_unwind(AssertUnwindSafe(|| team.each(&mut [0; 3], |_, _| panic::panic_any(1))));
        assert!(caught.is_err());
    }
}

#[test]
fn team_may_move_between_threads() {
    let mut team = Team::new(2).expect("threads");
    let done = Mutex::new(Vec::new());
    for _ in 0..3 {
        team = thread::scope(|scope| {
            let done = &done;
            let work = move || {
                team.each(&mut [1, 2], |_, item| done.lock().expect("no panic").push(*item));
                team
            };
            scope.spawn(work).join().expect("no panic")
        });
    }
    drop(team);
    let mut done = done.into_inner().expect("no panic");
    done.sort_unstable();
    assert_eq!(done, [1, 1, 1, 2, 2, 2]);
}
