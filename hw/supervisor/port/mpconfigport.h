// MicroPython as the supervisor needs it: no prompt, no files, no floats beyond what the core wants.

#include <alloca.h>
#include <stdint.h>

#define MICROPY_CONFIG_ROM_LEVEL (MICROPY_CONFIG_ROM_LEVEL_EXTRA_FEATURES)
#define MICROPY_ENABLE_GC (1)
#define MICROPY_HELPER_REPL (1) // pyexec.c does not compile without; nothing calls it and the linker drops it
#define MICROPY_LONGINT_IMPL (MICROPY_LONGINT_IMPL_MPZ)
#define MICROPY_FLOAT_IMPL (MICROPY_FLOAT_IMPL_FLOAT)
#define MICROPY_ENABLE_EMERGENCY_EXCEPTION_BUF (1)
#define MICROPY_KBD_EXCEPTION (0)
#define MICROPY_USE_INTERNAL_PRINTF (1)
#define MICROPY_PY_SYS_PLATFORM "omamori-supervisor"
#define MICROPY_PY_SYS_STDIO_BUFFER (0)
#define MICROPY_PY_BINASCII (1)
#define MICROPY_PY_BINASCII_CRC32 (1)
#define MICROPY_PY_DEFLATE (1)
#define MICROPY_PY_TIME (1)
#define MICROPY_PY_TIME_TIME_TIME_NS (0)
#define MICROPY_PY_TIME_GMTIME_LOCALTIME_MKTIME (0)
#define MICROPY_PY_SELECT (0)
#define MICROPY_PY_ASYNCIO (0)
#define MICROPY_PY_MACHINE (0)
#define MICROPY_PY_FRAMEBUF (0)
#define MICROPY_VFS (0)

#define MICROPY_HW_BOARD_NAME "Omamori supervisor"
#define MICROPY_HW_MCU_NAME "Cortex-M3"

#define MICROPY_MAKE_POINTER_CALLABLE(p) ((void *)((mp_uint_t)(p) | 1))
#define MP_SSIZE_MAX (0x7fffffff)
#define UINT_FMT "%lu"
#define INT_FMT "%ld"
typedef int32_t mp_int_t;
typedef uint32_t mp_uint_t;
typedef long mp_off_t;

#define MP_NEED_LOG2 (1)
#define MP_STATE_PORT MP_STATE_VM
#define MICROPY_INTERNAL_WFE(timeout_ms) __asm volatile("wfi")
#define MICROPY_EVENT_POLL_HOOK                                                                                        \
    do {                                                                                                               \
        extern void mp_handle_pending(bool);                                                                           \
        mp_handle_pending(true);                                                                                       \
        __asm volatile("wfi");                                                                                         \
    } while (0);
