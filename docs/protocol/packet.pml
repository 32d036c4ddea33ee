/* Packets: every one that was ever sealed stays with the host. payload/packet.s */

#define PAGE 1
#define END_OF_EPOCH 2
#define END 3

#if SIDES > 1
/* By key, that is START, ring and lane, and by sequence; 0: not sealed. The host presents any of them, to anybody. */
short sealed[(STARTS + 1) * RINGS * LANES * TURNS];
#define SEALED(k, i, l, n) sealed[(((k) * RINGS + (i)) * LANES + (l)) * TURNS + (n)]
#define PACKET(kind, field, in_epoch, urgent) ((kind) + 4 * (field) + 64 * (in_epoch) + 128 * (urgent))
#endif

hidden byte other, other_ring, other_lane, other_turn; /* for loops inside one step */

/* seal_packet: the sequence number is spent, then used. Nobody has sealed with this key and this number. */
inline seal(s, i, r, l, kind, field, urgent) {
	d_step {
		assert(key[r] != 0);
		assert(sequence[LANE(r, l)] == taken[LANE(r, l)]);
#if SIDES > 1
		for (other : 1 .. starts) {
			if
			:: SAME_SECRET(other, key[r]) ->
#if defined(DROP_STREAM_IN_KEY) && !defined(DROP_STREAM_CHECK)
				for (other_ring : 0 .. RINGS - 1) {
					for (other_lane : 0 .. LANES - 1) {
						assert(SEALED(other, other_ring, other_lane, sequence[LANE(r, l)]) == 0)
					}
				}
#else
				assert(SEALED(other, i, l, sequence[LANE(r, l)]) == 0)
#endif
			:: else
			fi
		}
		SEALED(key[r], i, l, sequence[LANE(r, l)]) = PACKET(kind, field, epoch[r], urgent);
#endif
		sequence[LANE(r, l)]++;
		taken[LANE(r, l)]++
	}
}

/* agree compares pages (bits 2 to 5) and urgent packets (bits 7 and up) of an end packet. */
#ifdef DROP_TOTALS
#define TOTAL_BITS 0
#else
#define TOTAL_BITS 60
#endif
#ifdef DROP_URGENT_COUNT
#define URGENT_BITS 0
#else
#define URGENT_BITS 32640
#endif
#define COMPARED(kind) ((kind) == PAGE -> 32767 : 67 + TOTAL_BITS + URGENT_BITS)
#define MATCHES(packet, expected, kind) (((packet) & COMPARED(kind)) == ((expected) & COMPARED(kind)))

/* check_packet, check_turn, open_packet: the host presents one of the packets that there are; `opened` says whether it
 * passes. A field that is compared is taken to be right, for if it is not nothing happens; a dropped guard sets it free. */
inline open(s, i, r, l, kind, field, urgent) {
	assert(key[r] != 0);
#if SIDES > 1
	from_start = 1;
	do
	:: from_start < starts -> from_start++
	:: break
	od;
#ifdef FAIR
	if
	:: fair -> from_start = started[1 - s]
	:: else
	fi;
#endif
	from_ring = i;
	from_lane = l;
#if defined(DROP_STREAM_CHECK) && defined(DROP_STREAM_IN_KEY)
	if
	:: true
	:: from_ring = RINGS - 1 - i
	:: from_lane = LANES - 1 - l
	fi;
#endif
	from_turn = sequence[LANE(r, l)];
#ifdef DROP_SEQUENCE_CHECK
	if
	:: true
	:: from_turn > 0 -> from_turn--
	:: from_turn < TURNS - 1 -> from_turn++
	fi;
#endif
	opened = SAME_SECRET(from_start, key[r]) &&
		MATCHES(SEALED(from_start, from_ring, from_lane, from_turn), PACKET(kind, field, epoch[r], urgent), kind);
	if
	:: opened ->
		/* It is of this session, of this stream, from the other side, and the next one that was sealed there. */
		assert(start_side[from_start] != s && start_role[from_start] == SOURCE && start_role[key[r]] == TARGET);
		assert(start_source[from_start] == start_source[key[r]] && start_target[from_start] == start_target[key[r]]);
		assert(from_ring == i && from_lane == l && from_turn == taken[LANE(r, l)])
	:: else
	fi;
#else
	if
	:: opened = 1
	:: HOSTILE -> opened = 0
	fi;
#endif
	sequence[LANE(r, l)] = sequence[LANE(r, l)] + opened;
	taken[LANE(r, l)] = taken[LANE(r, l)] + opened
}
