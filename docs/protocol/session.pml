/* How a session begins and ends. payload/session.s, entry.s */

/* wipe_session, and what a ring without a session has */
inline forget(s, i, r) {
	key[r] = 0;
	joined_generation[r] = 0;
	epoch[r] = 0;
	ended[r] = 0;
	resumed[r] = 0;
	pages[r] = 0;
	epoch_pages[r] = 0;
	for (other : 0 .. LANES - 1) {
		sequence[LANE(r, other)] = 0
	}
#ifndef DROP_NONCE_ONCE
	if
	:: i == 0 -> nonce[s] = 0
	:: else
	fi;
#endif
#ifdef DROP_NONCE_ONCE
	phase[r] = (i == 0 && nonce[s] -> GREETED : IDLE)
#else
	phase[r] = IDLE
#endif
}

/* end_session. `ending` is set with a locked instruction. Nobody begins a session while it is set, so one that is seen
 * alive from then on stays the latest, and whoever has seen it may wipe its Ks. */
inline end_session(s, i, r) {
	d_step {
		at_end[r] = 1;
		alive = ending[r] == 2;
#if !defined(DROP_ENDING_FLAG) && !defined(DROP_ENDING_LOCK)
		if
		:: ending[r] == 0 -> ending[r] = 1
		:: else
		fi
#endif
	};
	d_step {
		seen = generation[s];
		alive = alive || (seen & 1);
#if !defined(DROP_ENDING_FLAG) && !defined(DROP_ENDING_LOCK)
		if
		:: alive -> ending[r] = 2
		:: else
		fi
#endif
	};
	if
	:: alive ->
		d_step {
			if
			:: (seen & 1) && generation[s] == seen -> generation[s]++
			:: else
			fi;
#ifdef DROP_ENDING_LOCK
			ending[r] = 2
#endif
		};
#ifndef DROP_SECRET_WIPE
		secret[s] = 0
#endif
	:: else
	fi;
	d_step {
		ending[r] = 0;
		at_end[r] = 0;
		alive = 0;
		seen = 0
	}
}

/* abort */
inline abort(s, i, r) {
	end_session(s, i, r);
	d_step {
		forget(s, i, r)
	}
}

/* attend: before every submission and every chunk */
inline attend(s, i, r) {
	d_step {
		if
#ifndef DROP_GENERATION_CHECK
		:: IN_SESSION(r) && joined_generation[r] != generation[s] -> forget(s, i, r)
#endif
		:: else
		fi;
		assert(!WORKS(r) || key[r] != broken[s]);
		held = ended[r]
	};
	if
	:: held ->
		d_step {
			held = 0;
			if
			:: session_epoch[s] != epoch[r] -> begin_epoch(s, i, r)
			:: else
			fi
		}
	:: else
	fi
}

inline begin_epoch(s, i, r) {
	epoch[r]++;
	ended[r] = 0;
	epoch_pages[r] = 0;
	assert(ended_ghost[s] >= epoch[r] * start_streams[key[r]])
}

/* hello: ring 0, no session */
inline hello(s, i, r) {
	d_step {
		if
		:: hellos < HELLOS - KEPT_HELLOS ->
			hellos++;
			nonce[s] = hellos;
			phase[r] = GREETED
		:: else
		fi
	}
}

/* others_rest */
inline others_rest(s, i, r) {
	rest = 1;
#ifndef DROP_BUSY_RULE
	n = 1;
	do
	:: n < RINGS ->
		if
		:: ending[s * RINGS + n] -> rest = 0; break
		:: else
		fi;
		if
		:: busy[s * RINGS + n] ->
			if
			:: IN_SESSION(s * RINGS + n) && phase[s * RINGS + n] != FINISHED -> rest = 0; break
			:: else
			fi
		:: else
		fi;
		n++
	:: else -> break
	od;
	n = 0
#endif
}

/* The peer's hello is any but our own; its tag is under the transport key, so a helper has made it. */
inline peer_hello(s, i, r) {
#if SIDES > 1
	atomic {
		peer = 1;
		do
		:: peer < hellos -> peer++
		:: break
		od;
#ifdef FAIR
		if
		:: fair -> peer = fair_hello[1 - s]
		:: else
		fi;
#endif
#ifdef DROP_OWN_NONCE
		rest = 1;
#else
		rest = peer != nonce[s];
#endif
#ifdef DROP_HELLO_TAG
		if
		:: true
		:: peer = HELLOS + 1; rest = 1
		fi
#endif
	}
#else
	skip
#endif
}

/* start: ring 0, GREETED */
inline start(s, i, r) {
	others_rest(s, i, r);
	if
	:: !rest
	:: else ->
		peer_hello(s, i, r)
	fi;
	if
	:: !rest
	:: else ->
		atomic {
			rest = 0;
			starts < STARTS;
			starting[s] = 1;
			starts++;
			started[s] = starts;
			start_side[starts] = s;
			/* A helper has made it, so the host does not know its scalar. */
			assert(peer <= HELLOS);
			start_streams[starts] = RINGS;
			start_role[starts] = SOURCE + (SIDES == 1 || s == 1);
#ifndef SAME_TERMS
			do
			:: start_streams[starts] > 1 -> start_streams[starts]--
			:: break
			od;
			if
			:: start_role[starts] = SOURCE
			:: start_role[starts] = TARGET
			fi;
#endif
			if
			:: start_role[starts] == SOURCE ->
				start_source[starts] = nonce[s];
				start_target[starts] = peer
			:: else ->
				start_source[starts] = peer;
				start_target[starts] = nonce[s]
			fi;
			peer = 0;
			record_role[s] = start_role[starts];
			record_streams[s] = start_streams[starts];
			epoch_ghost[s] = 0;
			session_ghost[s] = 0;
			ended_ghost[s] = 0;
			complete[s] = 0;
			for (other : 0 .. RINGS * LANES - 1) {
				taken[s * RINGS * LANES + other] = 0
			}
			/* Where nobody joins, Ks is not kept. */
			if
			:: record_streams[s] > 1 -> secret[s] = starts
			:: else
			fi
		};
#ifndef DROP_START_CLEAR
		d_step {
			moved_in_epoch[s] = 0;
			moved_in_session[s] = 0
		};
#endif
		d_step {
			session_epoch[s] = 0;
			joined[s] = 0;
			rings_ended[s] = 0;
			rings_finished[s] = 0
		};
		d_step {
			key[r] = started[s];
			joined_generation[r] = generation[s] + 1;
			phase[r] = record_role[s];
#ifndef DROP_NONCE_ONCE
			nonce[s] = 0
#endif
		};
		d_step {
			generation[s]++;
			starting[s] = 0
		}
	fi
}

/* join: any other ring, IDLE. The phase is taken with a locked instruction before the look at the generation: either
 * START sees it, or this ring sees no session, or the new one. */
inline join(s, i, r) {
#if !defined(DROP_JOIN_MARK) && !defined(DROP_JOIN_LOCK)
	phase[r] = JOINING;
#endif
	seen = generation[s];
	if
	:: (seen & 1) && i < record_streams[s] ->
		key[r] = secret[s];
		d_step {
			rest = 1;
#ifndef DROP_JOIN_RECHECK
			rest = generation[s] == seen
#endif
		};
		if
		:: rest ->
			d_step {
				rest = 0;
				assert(key[r] == started[s]);
				joined_generation[r] = seen;
#ifndef DROP_JOIN_MARK
				phase[r] = record_role[s]
#endif
			};
			d_step {
				joined[s]++;
				n = joined[s] + 1 == record_streams[s]
			};
			if
			:: n ->
				d_step {
					n = 0;
					secret[s] = 0
				}
			:: else
			fi;
#ifdef DROP_JOIN_MARK
			phase[r] = record_role[s];
#endif
		:: else ->
			d_step {
				forget(s, i, r);
				rest = 0
			}
		fi
	:: else ->
		phase[r] = IDLE
	fi;
	seen = 0
}

#ifdef DROP_ENTRY_RESUMES
#define ENDING_LEFT(r) false
#else
#define ENDING_LEFT(r) (ending[r] != 0)
#endif

/* entry64: a start of a vCPU. It goes on with what its block was about to end. */
inline entry(s, i, r) {
	busy[r] = 1;
#ifdef DROP_ENDING_KEPT
	ending[r] = 0;
#endif
	if
#ifndef DROP_ENTRY_ENDS
	:: i == 0 || IN_SESSION(r) || ENDING_LEFT(r) -> end_session(s, i, r)
#endif
	:: else
	fi;
	if
#ifndef DROP_ENTRY_WIPE
	:: i == 0 -> secret[s] = 0
#endif
	:: else
	fi;
	d_step {
		forget(s, i, r);
		if
		:: i == 0 -> starting[s] = 0
		:: else
		fi;
		at_end[r] = 0;
		lost[r] = 0;
		busy[r] = 0
	}
}
