// Starts MicroPython with the frozen main.py and nothing else: no prompt, no files, no way in from the console.

#include "board.h"
#include "py/builtin.h"
#include "py/gc.h"
#include "py/lexer.h"
#include "py/mperrno.h"
#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stackctrl.h"
#include "shared/runtime/gchelper.h"
#include "shared/runtime/pyexec.h"

// The expander's register with the relay: everything off, the wire leads past the box (see lib/supervisor/pins.py).
static const uint8_t relay_off[] = {0x06, 0x55};
#define EXPANDER 0x60
#define ATTEMPTS 3

static uint32_t heap[128 * 1024 / sizeof(uint32_t)];

int main(void) {
    // A program that cannot even start must not leave the office's wire in a box that nobody watches.
    if (board_attempts() >= ATTEMPTS) {
        board_i2c_write(EXPANDER, relay_off, sizeof(relay_off));
    }
    mp_stack_ctrl_init();
    mp_stack_set_limit(32 * 1024);
    gc_init(heap, heap + MP_ARRAY_SIZE(heap));
    mp_init();
    // Prints the traceback of an exception. A program that ends, however it ends, is started again by the caller.
    pyexec_frozen_module("main.py", false);
    mp_hal_delay_ms(100);
    return 0;
}

void gc_collect(void) {
    gc_collect_start();
    gc_helper_collect_regs_and_stack();
    gc_collect_end();
}

void nlr_jump_fail(void *value) {
    (void)value;
    board_restart();
}

mp_import_stat_t mp_import_stat(const char *path) {
    (void)path;
    return MP_IMPORT_STAT_NO_EXIST;
}

mp_lexer_t *mp_lexer_new_from_file(qstr filename) {
    (void)filename;
    mp_raise_OSError(MP_ENOENT);
}

mp_obj_t mp_builtin_open(size_t n_args, const mp_obj_t *args, mp_map_t *kwargs) {
    (void)n_args, (void)args, (void)kwargs;
    mp_raise_OSError(MP_ENOENT);
}
MP_DEFINE_CONST_FUN_OBJ_KW(mp_builtin_open_obj, 1, mp_builtin_open);

mp_uint_t mp_hal_ticks_ms(void) {
    return board_ms();
}

mp_uint_t mp_hal_ticks_us(void) {
    return board_ms() * 1000;
}

uint64_t mp_hal_time_ns(void) {
    return (uint64_t)board_ms() * 1000000;
}

void mp_hal_delay_ms(mp_uint_t ms) {
    uint32_t begin = board_ms();
    while (board_ms() - begin < ms) {
        mp_handle_pending(true);
        board_idle();
    }
}

void mp_hal_delay_us(mp_uint_t us) {
    mp_hal_delay_ms((us + 999) / 1000);
}

int mp_hal_stdin_rx_chr(void) {
    for (;;) { // nobody listens to the console
        board_idle();
    }
}

uintptr_t mp_hal_stdio_poll(uintptr_t flags) {
    (void)flags;
    return 0;
}

mp_uint_t mp_hal_stdout_tx_strn(const char *text, size_t length) {
    board_console_write(text, length);
    return length;
}
