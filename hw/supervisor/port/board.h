// The hardware of the port: clock, serial lines, I2C, watchdog, and what outlives a restart.
#ifndef OMAMORI_BOARD_H
#define OMAMORI_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BOARD_KEPT_BYTES 64

enum { LINE_CONSOLE, LINE_LINK, LINES };

void board_init(void);
// Milliseconds, from anywhere; wraps after 49 days.
uint32_t board_ms(void);
void board_idle(void);
void board_console_write(const char *text, size_t length);

// Returns when the link has something to read, or after so many milliseconds.
void board_link_wait(uint32_t ms);
size_t board_link_read(uint8_t *to, size_t size);
void board_link_write(const uint8_t *from, size_t length);
uint32_t board_link_heard_ms(void);

bool board_i2c_write(uint8_t address, const uint8_t *from, size_t length);
bool board_i2c_read(uint8_t address, uint8_t reg, uint8_t *to, size_t length);

void board_watchdog_start(uint32_t ms);
void board_watchdog_feed(void);

// True when this start follows a watchdog, a fault or an error of the program instead of a power-on.
bool board_was_restarted(void);
// How many starts in a row did not get as far as `board_runs_well`.
uint32_t board_attempts(void);
void board_runs_well(void);
const uint8_t *board_kept(size_t *length);
void board_keep(const uint8_t *from, size_t length);
// Starts the program again; every pin stays as it is.
_Noreturn void board_restart(void);

#endif
