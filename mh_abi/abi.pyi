"""Generated from payload/abi.h by `python -m mh_abi.stub`."""

from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Final, Protocol

class Type(Protocol):
    def __len__(self) -> int: ...

class Field(Protocol):
    @property
    def offset(self) -> int: ...
    @property
    def type(self) -> Type: ...

class _Kind(type):
    fields: Mapping[str, Field]
    def __len__(cls) -> int: ...

class Structure(metaclass=_Kind):
    def __len__(self) -> int: ...
    def dumps(self) -> bytes: ...

HEADER: Final[Path]
HEADERS: Final[tuple[Path, ...]]

def constants() -> dict[str, int | str]: ...
def enums() -> dict[str, type[IntEnum]]: ...
def enumerators() -> dict[str, int]: ...
def structures() -> dict[str, type[Structure]]: ...
def assembler_symbols() -> dict[str, int | str]: ...

MH_PAGE_BYTES: Final = 4096
MH_ABI_VERSION: Final = 4
MH_PROTOCOL_LOW: Final = 4
MH_PROTOCOL_HIGH: Final = 4
MH_DESCRIPTOR_MAGIC: Final = 5786075798101706067
MH_SCHEMES_AT_HOME: Final = 6
MH_SCHEMES_WITH_TUPLES: Final = 8
MH_LOWEST_CBIT: Final = 47
MH_HIGHEST_CBIT: Final = 51
MH_CBIT_FLOOR: Final = 32
MH_FLAG_FIXED_BASE: Final = 1
MH_FLAG_FIXED_CBIT: Final = 2
MH_FLAG_ES: Final = 4
MH_FLAG_STRICT: Final = 8
MH_FLAGS: Final = 15
MH_FLAG_SNP: Final = 16
MH_START_ANEW: Final = 2147483648
MH_MAX_RINGS: Final = 64
MH_STACK_BYTES: Final = 8192
MH_GUARD_BYTES: Final = 4096
MH_FAULT_STACK_BYTES: Final = 4096
MH_NO_HOME: Final = 18446744073709551615
MH_RELOCATE_BASE: Final = 1
MH_RELOCATE_CBIT: Final = 2
MH_REGION_PRIVATE: Final = 0
MH_REGION_SHARED: Final = 1
MH_HANDOVER_MAGIC: Final = 5928239382951510344
MH_HANDOVER_REGIONS: Final = 8
MH_PROTECTED_MAX: Final = 4
MH_AUTHENTICATOR_BYTES: Final = 32
MH_RING_MAGIC: Final = 5138124842759637069
MH_RING_ENTRIES: Final = 64
MH_RING_SLOTS: Final = 512
MH_RING_SUBMISSIONS: Final = 4096
MH_RING_COMPLETIONS: Final = 8192
MH_RING_LIST: Final = 12288
MH_RING_RESULTS: Final = 16384
MH_RING_PACKETS: Final = 20480
MH_RING_DATA: Final = 86016
MH_URGENT_ENTRIES: Final = 8
MH_URGENT_SLOTS: Final = 8
MH_URGENT_SUBMISSIONS: Final = 2183168
MH_URGENT_COMPLETIONS: Final = 2183680
MH_URGENT_LIST: Final = 2184192
MH_URGENT_RESULTS: Final = 2184256
MH_URGENT_PACKETS: Final = 2184320
MH_URGENT_DATA: Final = 2187264
MH_RING_BYTES: Final = 2220032
MH_FEATURE_AESNI: Final = 1
MH_FEATURE_VAES: Final = 2
MH_FEATURE_ZMM: Final = 4
MH_BATCH_LIST: Final = 1
MH_BATCH_VMSA: Final = 2
MH_BATCH_PRIVATE: Final = 4
MH_VMSA_BYTES: Final = 2097152
MH_MESSAGE_PAGES: Final = 4
MH_CHALLENGE_BYTES: Final = 16
MH_OWNER_KEY_BYTES: Final = 32
MH_REPORT_BYTES: Final = 1184
MH_SECRET_TABLE_BYTES: Final = 104
MH_MESSAGE_REPORT_REQ: Final = 5
MH_MESSAGE_EXPORT_REQ: Final = 7
MH_MESSAGE_ABSORB_NOMA_REQ: Final = 15
MH_MESSAGE_ALGORITHM: Final = 1
MH_MESSAGE_VERSION: Final = 1
MH_CONTEXT_BYTES: Final = 768
MH_CONTEXT_VERSION: Final = 3
MH_EXPORT_IMI: Final = 1
MH_VMPCKS_BYTES: Final = 128
MH_MSR_GHCB: Final = 3221291312
MH_GHCB_REGISTER: Final = 18
MH_GHCB_PROTOCOL: Final = 2
MH_GHCB_GUEST_REQUEST: Final = 2147483665
MH_GHCB_AP_CREATION: Final = 2147483667
MH_GHCB_AP_CREATE: Final = 1
MH_IGVM_DATA_IMAGE: Final = 1296564225
MH_DEBUG_PORT: Final = 1026
MH_MSR_MIGRATION_CONTROL: Final = 1263947016
MH_MIGRATION_READY: Final = 1
MH_LANDING_REASON_SET: Final = 2
MH_HELLO_MAGIC: Final = 1330137171
MH_HELLO_MAC_BYTES: Final = 112
MH_PACKET_MAGIC: Final = 1263552589
MH_PACKET_SLOT_BYTES: Final = 128
MH_PACKET_AAD_BYTES: Final = 64
MH_PACKET_IV_OFFSET: Final = 12
MH_PACKET_IV_BYTES: Final = 12
MH_TAG_BYTES: Final = 16
MH_STREAM_URGENT: Final = 256
MH_NONCE_BYTES: Final = 32
MH_KEY_BYTES: Final = 32
MH_SHARE_BYTES: Final = 32
MH_SESSION_BYTES: Final = 16
MH_GUEST_BYTES: Final = 16
MH_SECRET_ENTRY_BYTES: Final = 20
MH_OWNER_STRICT: Final = 1
MH_OWNER_CONTEXT: Final = 2
MH_SECRET_VERSION: Final = 1
MH_SHARE_LABEL: Final = "SEV MH share"
MH_IMAGE_FILE_GUID: Final = "aba6653f-b6ed-4918-9e2f-4c5378844a38"
MH_LOADER_FILE_GUID: Final = "e07b7889-9780-46a5-8c98-84c88bb3ca1a"
MH_IGVM_DATA_GUID: Final = "3dd177ff-b632-4e25-bef3-065063d55fc4"
MH_FIRMWARE_ENTRY_GUID: Final = "bc669de2-84fd-4937-a87e-874a5138df0b"
MH_PUBLISHED_GUID: Final = "44e9cb1e-c007-4705-9fde-9ff72221aab4"
MH_MIGRATION_VARIABLE_GUID: Final = "0cf29b71-9e51-433a-a3b7-81f3ab16b875"
MH_MIGRATION_VARIABLE: Final = "SevLiveMigrationEnabled"
MH_DEBUG_MARKER: Final = "SEV-MH "
MH_SECRET_TABLE_GUID: Final = "1e74f542-71dd-4d66-963e-ef4287ff173b"
MH_SECRET_RECORD_GUID: Final = "5c9dfc18-1a7f-4c3b-8c4e-3e0cb0ec1c2e"
MH_KDF_LABEL_HELLO: Final = "SEV MH hello ky"
MH_KDF_LABEL_RANDOM: Final = "SEV MH random b"
MH_KDF_LABEL_SESSION: Final = "SEV MH session "
MH_KDF_LABEL_IDENTITY: Final = "SEV MH sessn id"
MH_KDF_LABEL_PAGE: Final = "SEV MH page key"
MH_KDF_LABEL_MASK: Final = "SEV MH mask key"

class mh_scheme(IntEnum):
    MH_SCHEME_ALIAS_GPA = 1
    MH_SCHEME_ALIAS_WINDOW = 2
    MH_SCHEME_REGIONS = 3
    MH_SCHEME_ISOLATED = 4
    MH_SCHEME_VMPL = 5

class mh_address_kind(IntEnum):
    MH_ADDRESS_GPA = 1
    MH_ADDRESS_RAM = 2

class mh_protection(IntEnum):
    MH_PROTECTION_SEV = 1
    MH_PROTECTION_SEV_ES = 2
    MH_PROTECTION_SEV_SNP = 3

class mh_ring_state(IntEnum):
    MH_RING_OFFLINE = 0
    MH_RING_READY = 1
    MH_RING_BROKEN = 2
    MH_RING_FAULT = 3
    MH_RING_CLAIMED = 4

class mh_op(IntEnum):
    MH_OP_HELLO = 1
    MH_OP_START = 2
    MH_OP_EXPORT = 3
    MH_OP_IMPORT = 4
    MH_OP_EPOCH = 5
    MH_OP_FINISH = 6
    MH_OP_ABORT = 7
    MH_OP_JOIN = 8
    MH_OP_SHARE = 9
    MH_OP_RESUME = 10
    MH_OP_ATTEST = 11
    MH_OP_RECORD = 12
    MH_OP_RUN = 13
    MH_OP_CONTEXT = 14

class mh_role(IntEnum):
    MH_ROLE_SOURCE = 1
    MH_ROLE_TARGET = 2

class mh_status(IntEnum):
    MH_DONE = 0
    MH_BAD_OP = 1
    MH_WRONG_RING = 2
    MH_BAD_ENTRY = 3
    MH_WRONG_STATE = 4
    MH_EPOCH_PENDING = 5
    MH_BUSY = 6
    MH_NO_FEATURE = 7
    MH_NO_ENTROPY = 8
    MH_NO_KEY = 9
    MH_NOT_STRICT = 10
    MH_NOT_HELLO = 11
    MH_NO_PROTOCOL = 12
    MH_OTHER_ADDRESSES = 13
    MH_OTHER_GUEST = 14
    MH_OTHER_TERMS = 15
    MH_WEAKER_PEER = 16
    MH_BAD_HELLO = 17
    MH_BAD_NONCE = 18
    MH_BAD_SHARE = 19
    MH_NOT_ALIGNED = 20
    MH_OUT_OF_RANGE = 21
    MH_PROTECTED = 22
    MH_SHARED = 23
    MH_REPEATED = 24
    MH_BAD_PACKET = 25
    MH_WRONG_SESSION = 26
    MH_WRONG_STREAM = 27
    MH_WRONG_ADDRESS = 28
    MH_WRONG_EPOCH = 29
    MH_REPLAYED = 30
    MH_OUT_OF_ORDER = 31
    MH_INCOMPLETE = 32
    MH_BAD_TOTALS = 33
    MH_BAD_TAG = 34
    MH_CHANGED = 35
    MH_SKIPPED = 36
    MH_ENDED = 37
    MH_NO_REPORT = 38
    MH_BAD_RECORD = 39
    MH_NOT_FRESH = 40
    MH_BAD_VMSA = 41
    MH_RUNNING = 42
    MH_NO_CONTEXT = 43

class mh_load_step(IntEnum):
    MH_LOAD_FIND = 1
    MH_LOAD_DIGEST = 2
    MH_LOAD_DESCRIPTOR = 3
    MH_LOAD_RESERVE = 4
    MH_LOAD_PUBLISH = 5
    MH_LOAD_VARIABLE = 6
    MH_LOAD_HANDOVER = 7
    MH_LOAD_SNP = 8
    MH_LOAD_SVSM = 9

class mh_landing_end(IntEnum):
    MH_LANDING_FAULT = 1
    MH_LANDING_MODE = 2
    MH_LANDING_FEATURE = 3
    MH_LANDING_LEVEL = 4
    MH_LANDING_SEGMENT = 5
    MH_LANDING_ADDRESS = 6
    MH_LANDING_STACK = 7
    MH_LANDING_WAY = 8

class mh_kind(IntEnum):
    MH_KIND_PAGE = 1
    MH_KIND_ZERO = 2
    MH_KIND_EPOCH = 3
    MH_KIND_END = 4
    MH_KIND_VMSA = 5
    MH_KIND_CONTEXT = 6

class mh_descriptor(Structure):
    magic: int
    version: int
    scheme: int
    descriptor_bytes: int
    flags: int
    image_bytes: int
    memory_bytes: int
    link_base: int
    home: int
    window: int
    ram_limit: int
    cr3: int
    entry64: int
    stack64: int
    c_bit: int
    ring_offset: int
    ring_count: int
    secret_offset: int
    secret_bytes: int
    relocation_offset: int
    relocation_count: int
    region_offset: int
    region_count: int
    entry32: int
    vmsa_offset: int
    ring_stride: int
    vcpu_stride: int
    def __init__(self, data: bytes = ..., /, *, magic: int = ..., version: int = ..., scheme: int = ..., descriptor_bytes: int = ..., flags: int = ..., image_bytes: int = ..., memory_bytes: int = ..., link_base: int = ..., home: int = ..., window: int = ..., ram_limit: int = ..., cr3: int = ..., entry64: int = ..., stack64: int = ..., c_bit: int = ..., ring_offset: int = ..., ring_count: int = ..., secret_offset: int = ..., secret_bytes: int = ..., relocation_offset: int = ..., relocation_count: int = ..., region_offset: int = ..., region_count: int = ..., entry32: int = ..., vmsa_offset: int = ..., ring_stride: int = ..., vcpu_stride: int = ...) -> None: ...

class mh_relocation(Structure):
    offset: int
    count: int
    kinds: int
    def __init__(self, data: bytes = ..., /, *, offset: int = ..., count: int = ..., kinds: int = ...) -> None: ...

class mh_region(Structure):
    main_gpa: int
    length: int
    mirror_gpa: int
    kind: int
    def __init__(self, data: bytes = ..., /, *, main_gpa: int = ..., length: int = ..., mirror_gpa: int = ..., kind: int = ...) -> None: ...

class mh_handover(Structure):
    magic: int
    version: int
    count: int
    regions: list[mh_region]
    def __init__(self, data: bytes = ..., /, *, magic: int = ..., version: int = ..., count: int = ..., regions: list[mh_region] = ...) -> None: ...

class mh_range(Structure):
    start: int
    end: int
    def __init__(self, data: bytes = ..., /, *, start: int = ..., end: int = ...) -> None: ...

class mh_params(Structure):
    window_va: int
    ram_limit: int
    ring_va: int
    secret_va: int
    bitmap_va: int
    moved_va: int
    shared_va: int
    authenticators_va: int
    vmsa_va: int
    vcpus: int
    vcpu_stride: int
    protect: list[mh_range]
    features: int
    protocol_low: int
    protocol_high: int
    addresses: int
    protection: int
    def __init__(self, data: bytes = ..., /, *, window_va: int = ..., ram_limit: int = ..., ring_va: int = ..., secret_va: int = ..., bitmap_va: int = ..., moved_va: int = ..., shared_va: int = ..., authenticators_va: int = ..., vmsa_va: int = ..., vcpus: int = ..., vcpu_stride: int = ..., protect: list[mh_range] = ..., features: int = ..., protocol_low: int = ..., protocol_high: int = ..., addresses: int = ..., protection: int = ...) -> None: ...

class mh_fault(Structure):
    vector: int
    error_code: int
    rip: int
    cr2: int
    def __init__(self, data: bytes = ..., /, *, vector: int = ..., error_code: int = ..., rip: int = ..., cr2: int = ...) -> None: ...

class mh_ring(Structure):
    magic: int
    version: int
    entries: int
    features: int
    state: int
    head: int
    urgent_head: int
    reserved0: list[int]
    tail: int
    urgent_tail: int
    reserved1: list[int]
    fault: mh_fault
    def __init__(self, data: bytes = ..., /, *, magic: int = ..., version: int = ..., entries: int = ..., features: int = ..., state: int = ..., head: int = ..., urgent_head: int = ..., reserved0: list[int] = ..., tail: int = ..., urgent_tail: int = ..., reserved1: list[int] = ..., fault: mh_fault = ...) -> None: ...

class mh_submission(Structure):
    op: int
    role: int
    slot: int
    count: int
    cookie: int
    address: int
    chunk: int
    flags: int
    reserved0: int
    reserved1: list[int]
    def __init__(self, data: bytes = ..., /, *, op: int = ..., role: int = ..., slot: int = ..., count: int = ..., cookie: int = ..., address: int = ..., chunk: int = ..., flags: int = ..., reserved0: int = ..., reserved1: list[int] = ...) -> None: ...

class mh_result(Structure):
    status: int
    kind: int
    reserved: int
    def __init__(self, data: bytes = ..., /, *, status: int = ..., kind: int = ..., reserved: int = ...) -> None: ...

class mh_completion(Structure):
    status: int
    op: int
    epoch: int
    cookie: int
    pages: int
    total: int
    protocol: int
    reserved0: int
    reserved1: list[int]
    def __init__(self, data: bytes = ..., /, *, status: int = ..., op: int = ..., epoch: int = ..., cookie: int = ..., pages: int = ..., total: int = ..., protocol: int = ..., reserved0: int = ..., reserved1: list[int] = ...) -> None: ...

class mh_report_data(Structure):
    share: list[int]
    challenge: list[int]
    role: int
    label: list[int]
    def __init__(self, data: bytes = ..., /, *, share: list[int] = ..., challenge: list[int] = ..., role: int = ..., label: list[int] = ...) -> None: ...

class mh_shown(Structure):
    share: list[int]
    report: list[int]
    def __init__(self, data: bytes = ..., /, *, share: list[int] = ..., report: list[int] = ...) -> None: ...

class mh_sealed(Structure):
    table: list[int]
    tag: list[int]
    def __init__(self, data: bytes = ..., /, *, table: list[int] = ..., tag: list[int] = ...) -> None: ...

class mh_message(Structure):
    tag: list[int]
    sequence: int
    reserved0: int
    algorithm: int
    header_version: int
    header_bytes: int
    type: int
    version: int
    payload_bytes: int
    reserved1: int
    vmpck: int
    reserved2: list[int]
    def __init__(self, data: bytes = ..., /, *, tag: list[int] = ..., sequence: int = ..., reserved0: int = ..., algorithm: int = ..., header_version: int = ..., header_bytes: int = ..., type: int = ..., version: int = ..., payload_bytes: int = ..., reserved1: int = ..., vmpck: int = ..., reserved2: list[int] = ...) -> None: ...

class mh_report_request(Structure):
    report_data: list[int]
    vmpl: int
    key_select: int
    reserved: list[int]
    def __init__(self, data: bytes = ..., /, *, report_data: list[int] = ..., vmpl: int = ..., key_select: int = ..., reserved: list[int] = ...) -> None: ...

class mh_report_response(Structure):
    status: int
    report_bytes: int
    reserved: list[int]
    report: list[int]
    def __init__(self, data: bytes = ..., /, *, status: int = ..., report_bytes: int = ..., reserved: list[int] = ..., report: list[int] = ...) -> None: ...

class mh_export_request(Structure):
    context: int
    flags: int
    reserved: int
    def __init__(self, data: bytes = ..., /, *, context: int = ..., flags: int = ..., reserved: int = ...) -> None: ...

class mh_export_response(Structure):
    status: int
    context_bytes: int
    context_version: int
    reserved0: list[int]
    context: list[int]
    reserved1: list[int]
    def __init__(self, data: bytes = ..., /, *, status: int = ..., context_bytes: int = ..., context_version: int = ..., reserved0: list[int] = ..., context: list[int] = ..., reserved1: list[int] = ...) -> None: ...

class mh_absorb_request(Structure):
    context: int
    context_bytes: int
    context_version: int
    reserved: list[int]
    exported: list[int]
    def __init__(self, data: bytes = ..., /, *, context: int = ..., context_bytes: int = ..., context_version: int = ..., reserved: list[int] = ..., exported: list[int] = ...) -> None: ...

class mh_absorb_response(Structure):
    status: int
    reserved: list[int]
    def __init__(self, data: bytes = ..., /, *, status: int = ..., reserved: list[int] = ...) -> None: ...

class mh_secrets_page(Structure):
    version: int
    flags: int
    signature: int
    reserved: int
    gosvw: list[int]
    vmpck0: list[int]
    vmpck1: list[int]
    vmpck2: list[int]
    vmpck3: list[int]
    messages0: int
    def __init__(self, data: bytes = ..., /, *, version: int = ..., flags: int = ..., signature: int = ..., reserved: int = ..., gosvw: list[int] = ..., vmpck0: list[int] = ..., vmpck1: list[int] = ..., vmpck2: list[int] = ..., vmpck3: list[int] = ..., messages0: int = ...) -> None: ...

class mh_ghcb(Structure):
    save0: list[int]
    rax: int
    save1: list[int]
    exit_code: int
    exit_info1: int
    exit_info2: int
    save2: list[int]
    valid: list[int]
    reserved: list[int]
    protocol: int
    usage: int
    def __init__(self, data: bytes = ..., /, *, save0: list[int] = ..., rax: int = ..., save1: list[int] = ..., exit_code: int = ..., exit_info1: int = ..., exit_info2: int = ..., save2: list[int] = ..., valid: list[int] = ..., reserved: list[int] = ..., protocol: int = ..., usage: int = ...) -> None: ...

class mh_firmware_entry(Structure):
    base: int
    memory_bytes: int
    ring_offset: int
    scheme: int
    def __init__(self, data: bytes = ..., /, *, base: int = ..., memory_bytes: int = ..., ring_offset: int = ..., scheme: int = ...) -> None: ...

class mh_published(Structure):
    version: int
    c_bit: int
    base: int
    memory_bytes: int
    sha256: list[int]
    def __init__(self, data: bytes = ..., /, *, version: int = ..., c_bit: int = ..., base: int = ..., memory_bytes: int = ..., sha256: list[int] = ...) -> None: ...

class mh_hello(Structure):
    magic: int
    low: int
    high: int
    addresses: int
    protection: int
    flags: int
    guest: list[int]
    nonce: list[int]
    share: list[int]
    reserved: list[int]
    tag: list[int]
    def __init__(self, data: bytes = ..., /, *, magic: int = ..., low: int = ..., high: int = ..., addresses: int = ..., protection: int = ..., flags: int = ..., guest: list[int] = ..., nonce: list[int] = ..., share: list[int] = ..., reserved: list[int] = ..., tag: list[int] = ...) -> None: ...

class mh_packet(Structure):
    magic: int
    version: int
    kind: int
    length: int
    stream: int
    sequence: int
    address: int
    epoch: int
    reserved: int
    session: list[int]
    urgent: int
    tag: list[int]
    def __init__(self, data: bytes = ..., /, *, magic: int = ..., version: int = ..., kind: int = ..., length: int = ..., stream: int = ..., sequence: int = ..., address: int = ..., epoch: int = ..., reserved: int = ..., session: list[int] = ..., urgent: int = ..., tag: list[int] = ...) -> None: ...

class mh_secret(Structure):
    version: int
    protection: int
    flags: int
    reserved: int
    guest: list[int]
    key: list[int]
    def __init__(self, data: bytes = ..., /, *, version: int = ..., protection: int = ..., flags: int = ..., reserved: int = ..., guest: list[int] = ..., key: list[int] = ...) -> None: ...

class mh_session_context(Structure):
    source: list[int]
    target: list[int]
    shared: list[int]
    protocol: int
    streams: int
    reserved: int
    def __init__(self, data: bytes = ..., /, *, source: list[int] = ..., target: list[int] = ..., shared: list[int] = ..., protocol: int = ..., streams: int = ..., reserved: int = ...) -> None: ...

class mh_stream_context(Structure):
    stream: int
    reserved: int
    def __init__(self, data: bytes = ..., /, *, stream: int = ..., reserved: int = ...) -> None: ...
