/* Ends of epochs and of the session. payload/totals.s */

#if LANES > 1
#define URGENT(r) sequence[LANE(r, 1)]
#else
#define URGENT(r) 0
#endif

/* agree: the source makes the end packet; the target has one that the host presents, or refuses, and nothing changes. */
inline agree(s, i, r, kind, total) {
	if
	:: phase[r] == SOURCE ->
		opened = 1;
		seal(s, i, r, 0, kind, total, URGENT(r))
	:: phase[r] == TARGET -> open(s, i, r, 0, kind, total, URGENT(r))
	fi
}

/* end_epoch. Totals that differ end the session as an ABORT does, which the host may order at any time. */
inline end_epoch(s, i, r) {
	atomic {
		agree(s, i, r, END_OF_EPOCH, epoch_pages[r]);
		if
		:: opened ->
#ifdef DROP_ENDED_WAIT
			begin_epoch(s, i, r)
#else
			ended[r] = 1
#endif
		:: else
		fi
	};
	if
	:: opened ->
		d_step {
			rings_ended[s]++;
			ended_ghost[s]++;
			last = rings_ended[s] == record_streams[s]
		}
	:: else
	fi;
	if
	:: last ->
		last = 0;
#ifdef DROP_CLEAR_FIRST
		next_epoch(s);
#endif
		moved_in_session[s] = moved_in_session[s] | moved_in_epoch[s];
		moved_in_epoch[s] = 0;
		rings_ended[s] = 0;
#ifndef DROP_CLEAR_FIRST
		next_epoch(s);
#endif
		attend(s, i, r)
	:: else
	fi
}

/* The number comes last: it is what the others wait for. */
inline next_epoch(s) {
	d_step {
		session_ghost[s] = session_ghost[s] | epoch_ghost[s];
		epoch_ghost[s] = 0;
		session_epoch[s]++
	}
}

/* finish */
inline finish(s, i, r) {
	atomic {
		agree(s, i, r, END, pages[r])
	};
	if
	:: opened ->
		d_step {
			rings_finished[s]++;
			last = rings_finished[s] == record_streams[s]
		}
	:: else
	fi;
	if
	:: !opened
	:: last ->
		d_step {
			assert(key[r] == started[s] && !secret[s]);
			finished(s, i, r)
		};
		end_session(s, i, r);
		d_step {
			forget(s, i, r)
		}
	:: opened && !last ->
		d_step {
			forget_keys(s, i, r);
			phase[r] = FINISHED
		}
	fi
}

/* All keys of the ring, but not what tells it when the session is over. */
inline forget_keys(s, i, r) {
	seen = joined_generation[r];
	forget(s, i, r);
	joined_generation[r] = seen;
	seen = 0
}

/* The session is complete: at the target, all that was sealed in it was accepted. */
inline finished(s, i, r) {
	complete[s] = 1;
#if SIDES > 1
	if
	:: phase[r] == TARGET ->
		for (other_ring : 0 .. RINGS - 1) {
			for (other_lane : 0 .. LANES - 1) {
				for (other_turn : 0 .. TURNS - 1) {
					assert((SEALED(from_start, other_ring, other_lane, other_turn) != 0) ==
						(other_turn < taken[LANE(s * RINGS + other_ring, other_lane)]))
				}
			}
		}
	:: else
	fi
#endif
}
