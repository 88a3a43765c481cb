// The module `_board`: the hardware for MicroPython, one function for each thing the program does with it.

#include "board.h"
#include "py/binary.h"
#include "py/obj.h"
#include "py/runtime.h"
#include "py/smallint.h"

#define READ_MAX 256

static mp_obj_t link_read(void) {
    uint8_t bytes[READ_MAX];
    size_t length = board_link_read(bytes, sizeof(bytes));
    return length ? mp_obj_new_bytes(bytes, length) : mp_const_empty_bytes;
}
static MP_DEFINE_CONST_FUN_OBJ_0(link_read_obj, link_read);

static mp_obj_t link_write(mp_obj_t data) {
    mp_buffer_info_t info;
    mp_get_buffer_raise(data, &info, MP_BUFFER_READ);
    board_link_write(info.buf, info.len);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(link_write_obj, link_write);

static mp_obj_t link_heard_ms(void) {
    return MP_OBJ_NEW_SMALL_INT(board_link_heard_ms() & (MICROPY_PY_TIME_TICKS_PERIOD - 1));
}
static MP_DEFINE_CONST_FUN_OBJ_0(link_heard_ms_obj, link_heard_ms);

static mp_obj_t i2c_write(mp_obj_t address, mp_obj_t data) {
    mp_buffer_info_t info;
    mp_get_buffer_raise(data, &info, MP_BUFFER_READ);
    return mp_obj_new_bool(board_i2c_write((uint8_t)mp_obj_get_int(address), info.buf, info.len));
}
static MP_DEFINE_CONST_FUN_OBJ_2(i2c_write_obj, i2c_write);

static mp_obj_t i2c_read(mp_obj_t address, mp_obj_t reg, mp_obj_t length) {
    uint8_t bytes[16];
    mp_int_t count = mp_obj_get_int(length);
    if (count < 1 || count > (mp_int_t)sizeof(bytes)) {
        mp_raise_ValueError(MP_ERROR_TEXT("length"));
    }
    if (!board_i2c_read((uint8_t)mp_obj_get_int(address), (uint8_t)mp_obj_get_int(reg), bytes, (size_t)count)) {
        return mp_const_none;
    }
    return mp_obj_new_bytes(bytes, (size_t)count);
}
static MP_DEFINE_CONST_FUN_OBJ_3(i2c_read_obj, i2c_read);

static mp_obj_t watchdog_start(mp_obj_t ms) {
    board_watchdog_start((uint32_t)mp_obj_get_int(ms));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(watchdog_start_obj, watchdog_start);

static mp_obj_t watchdog_feed(void) {
    board_watchdog_feed();
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_0(watchdog_feed_obj, watchdog_feed);

static mp_obj_t link_wait(mp_obj_t ms) {
    mp_handle_pending(true);
    board_link_wait((uint32_t)mp_obj_get_int(ms));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(link_wait_obj, link_wait);

static mp_obj_t runs_well(void) {
    board_runs_well();
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_0(runs_well_obj, runs_well);

static mp_obj_t was_restarted(void) {
    return mp_obj_new_bool(board_was_restarted());
}
static MP_DEFINE_CONST_FUN_OBJ_0(was_restarted_obj, was_restarted);

static mp_obj_t kept(void) {
    size_t length = 0;
    const uint8_t *bytes = board_kept(&length);
    return bytes ? mp_obj_new_bytes(bytes, length) : mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_0(kept_obj, kept);

static mp_obj_t keep(mp_obj_t data) {
    mp_buffer_info_t info;
    mp_get_buffer_raise(data, &info, MP_BUFFER_READ);
    if (info.len > BOARD_KEPT_BYTES) {
        mp_raise_ValueError(MP_ERROR_TEXT("length"));
    }
    board_keep(info.buf, info.len);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(keep_obj, keep);

static const mp_rom_map_elem_t globals_table[] = {
    {MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR__board)},
    {MP_ROM_QSTR(MP_QSTR_link_read), MP_ROM_PTR(&link_read_obj)},
    {MP_ROM_QSTR(MP_QSTR_link_write), MP_ROM_PTR(&link_write_obj)},
    {MP_ROM_QSTR(MP_QSTR_link_heard_ms), MP_ROM_PTR(&link_heard_ms_obj)},
    {MP_ROM_QSTR(MP_QSTR_i2c_write), MP_ROM_PTR(&i2c_write_obj)},
    {MP_ROM_QSTR(MP_QSTR_i2c_read), MP_ROM_PTR(&i2c_read_obj)},
    {MP_ROM_QSTR(MP_QSTR_watchdog_start), MP_ROM_PTR(&watchdog_start_obj)},
    {MP_ROM_QSTR(MP_QSTR_watchdog_feed), MP_ROM_PTR(&watchdog_feed_obj)},
    {MP_ROM_QSTR(MP_QSTR_link_wait), MP_ROM_PTR(&link_wait_obj)},
    {MP_ROM_QSTR(MP_QSTR_runs_well), MP_ROM_PTR(&runs_well_obj)},
    {MP_ROM_QSTR(MP_QSTR_was_restarted), MP_ROM_PTR(&was_restarted_obj)},
    {MP_ROM_QSTR(MP_QSTR_kept), MP_ROM_PTR(&kept_obj)},
    {MP_ROM_QSTR(MP_QSTR_keep), MP_ROM_PTR(&keep_obj)},
};
static MP_DEFINE_CONST_DICT(globals, globals_table);

const mp_obj_module_t board_module = {
    .base = {&mp_type_module},
    .globals = (mp_obj_dict_t *)&globals,
};
MP_REGISTER_MODULE(MP_QSTR__board, board_module);
