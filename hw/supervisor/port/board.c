// MPS2 board with image AN385 (Arm application note 385): Cortex-M3, CMSDK peripherals.
//
// A hang or a fault restarts the program and nothing else: the watchdog's first stage is the NMI, and its handler
// starts the program again from the top, with every pin left as it is. Only if that does not help either, the second
// stage resets the whole chip.

#include "board.h"

#include <string.h>

#define REG(address) (*(volatile uint32_t *)(address))

#define SYSTICK_CONTROL REG(0xE000E010)
#define SYSTICK_RELOAD REG(0xE000E014)
#define SYSTICK_VALUE REG(0xE000E018)
#define NVIC_ENABLE REG(0xE000E100)
#define SCB_ICSR REG(0xE000ED04)
#define SCB_AIRCR REG(0xE000ED0C)
#define AIRCR_RESET 0x05FA0004u
#define ICSR_RETTOBASE (1u << 11)

#define UART_BASE(line) (0x40004000u + 0x1000u * (line))
#define UART_DATA(line) REG(UART_BASE(line) + 0x0)
#define UART_STATE(line) REG(UART_BASE(line) + 0x4)
#define UART_CONTROL(line) REG(UART_BASE(line) + 0x8)
#define UART_INTERRUPT(line) REG(UART_BASE(line) + 0xC)
#define UART_DIVIDER(line) REG(UART_BASE(line) + 0x10)
#define UART_TX_FULL 1u
#define UART_RX_FULL 2u

#define WATCHDOG(offset) REG(0x40008000u + (offset))
#define WATCHDOG_UNLOCK 0x1ACCE551u

// Both-ways bits of the I2C lines: written to "set" or "clear", read at "set".
#define I2C_SET REG(0x4002A000u)
#define I2C_CLEAR REG(0x4002A004u)
#define SCL 1u
#define SDA 2u

// A counter of the board that goes on by itself: a clock made of tick interrupts loses those it is too busy for.
#define COUNTER REG(0x40028018u)
#define COUNTER_PRESCALE REG(0x4002801Cu)

#define CLOCK_HZ 25000000u
#define BAUD 115200u
#define RING 1024u
#define RECORD_MAGIC 0x4F4D414Du

extern uint32_t _estack, _sidata, _sdata, _edata, _sbss, _ebss;
int main(void);

static struct {
    uint32_t restarted; // RECORD_MAGIC when the program was left on purpose
    uint32_t attempts;  // restarts since the program last ran well
    uint32_t magic;     // RECORD_MAGIC when the rest is whole
    uint32_t length;
    uint32_t check;
    uint8_t bytes[BOARD_KEPT_BYTES];
} record __attribute__((section(".kept")));

static volatile uint16_t ring_head, ring_tail;
static volatile uint32_t heard_ms;
static uint8_t ring[RING];
static bool restarted;

static uint32_t checksum(const uint8_t *bytes, size_t length) {
    uint32_t sum = 2166136261u; // FNV-1a; guards against memory that lost its charge, not against anybody
    for (size_t i = 0; i < length; i++) {
        sum = (sum ^ bytes[i]) * 16777619u;
    }
    return sum ^ (uint32_t)length;
}

__attribute__((used)) void c_start(void) {
    for (uint32_t *from = &_sidata, *to = &_sdata; to < &_edata;) {
        *to++ = *from++;
    }
    for (uint32_t *to = &_sbss; to < &_ebss;) {
        *to++ = 0;
    }
    board_init();
    main();
    board_restart();
}

__attribute__((naked, used)) void Reset_Handler(void) {
    __asm volatile("ldr r0, =_estack\n"
                   "mov sp, r0\n"
                   "bl c_start\n");
}

// Leaves an exception for the start of the program: an exception frame of our own on a fresh stack, then a return.
__attribute__((naked, used)) static void start_again(void) {
    __asm volatile("ldr r0, =_estack\n"
                   "sub r0, #32\n"
                   "mov sp, r0\n"
                   "mov r1, #0\n"
                   "str r1, [r0, #0]\n"
                   "str r1, [r0, #4]\n"
                   "str r1, [r0, #8]\n"
                   "str r1, [r0, #12]\n"
                   "str r1, [r0, #16]\n"
                   "str r1, [r0, #20]\n"
                   "ldr r1, =c_start\n"
                   "str r1, [r0, #24]\n"
                   "ldr r1, =0x01000000\n"
                   "str r1, [r0, #28]\n"
                   "cpsie i\n"
                   "ldr lr, =0xFFFFFFF9\n"
                   "bx lr\n");
}

// From here on no variable may be trusted. Called by the watchdog's NMI and by every fault.
__attribute__((used)) static void failed(void) {
    record.restarted = RECORD_MAGIC;
    // Another handler was interrupted: it would stay active for ever after a return to the program.
    if (!(SCB_ICSR & ICSR_RETTOBASE)) {
        SCB_AIRCR = AIRCR_RESET;
        for (;;) {
        }
    }
    WATCHDOG(0xC00) = WATCHDOG_UNLOCK;
    WATCHDOG(0x00C) = 1;
    WATCHDOG(0xC00) = 0;
    start_again();
}

// Only wakes the processor, so that whoever waits looks at the clock.
static void on_tick(void) {
}

static void on_link_byte(void) {
    UART_INTERRUPT(LINE_LINK) = 2;
    while (UART_STATE(LINE_LINK) & UART_RX_FULL) {
        uint8_t byte = (uint8_t)UART_DATA(LINE_LINK);
        uint16_t next = (ring_head + 1u) % RING;
        heard_ms = board_ms();
        if (next != ring_tail) { // a full ring drops bytes; the frames they belong to fail their CRC
            ring[ring_head] = byte;
            ring_head = next;
        }
    }
}

#define F ((uint32_t)&failed)
__attribute__((section(".isr_vector"), used)) const uint32_t isr_vector[48] = {
    (uint32_t)&_estack, (uint32_t)&Reset_Handler, F, F, F, F, F, 0, 0, 0, 0, F, F, 0, F, (uint32_t)&on_tick,
    F, F, (uint32_t)&on_link_byte, F, F, F, F, F, F, F, F, F, F, F, F, F,
};

void board_init(void) {
    restarted = record.restarted == RECORD_MAGIC;
    record.restarted = 0;
    record.attempts = restarted ? record.attempts + 1 : 0;
    for (int line = 0; line < LINES; line++) {
        UART_DIVIDER(line) = CLOCK_HZ / BAUD;
        UART_CONTROL(line) = line == LINE_LINK ? 1u | 2u | 8u : 1u; // send; the link also receives, with interrupt
    }
    COUNTER_PRESCALE = CLOCK_HZ / 1000 - 1;
    SYSTICK_CONTROL = 0;
    SYSTICK_RELOAD = CLOCK_HZ / 1000 - 1;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 7;
    NVIC_ENABLE = 1u << 2; // link, receive
}

uint32_t board_ms(void) {
    return COUNTER;
}

void board_idle(void) {
    __asm volatile("wfi");
}

void board_link_wait(uint32_t ms) {
    uint32_t begin = board_ms();
    while (ring_head == ring_tail && board_ms() - begin < ms) {
        board_idle();
    }
}

static void put(int line, uint8_t byte) {
    while (UART_STATE(line) & UART_TX_FULL) {
    }
    UART_DATA(line) = byte;
}

void board_console_write(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        put(LINE_CONSOLE, (uint8_t)text[i]);
    }
}

size_t board_link_read(uint8_t *to, size_t size) {
    size_t count = 0;
    while (count < size && ring_tail != ring_head) {
        to[count++] = ring[ring_tail];
        ring_tail = (ring_tail + 1u) % RING;
    }
    return count;
}

void board_link_write(const uint8_t *from, size_t length) {
    for (size_t i = 0; i < length; i++) {
        put(LINE_LINK, from[i]);
    }
}

uint32_t board_link_heard_ms(void) {
    return heard_ms;
}

// I2C, bit by bit (NXP UM10204). No device on this bus stretches the clock.

static void half_bit(void) {
    for (int i = 0; i < 20; i++) {
        __asm volatile("nop");
    }
}

static void scl(bool high) {
    if (high) {
        I2C_SET = SCL;
    } else {
        I2C_CLEAR = SCL;
    }
    half_bit();
}

static void sda(bool high) {
    if (high) {
        I2C_SET = SDA;
    } else {
        I2C_CLEAR = SDA;
    }
    half_bit();
}

static void i2c_start(void) {
    sda(true);
    scl(true);
    sda(false);
    scl(false);
}

static void i2c_stop(void) {
    sda(false);
    scl(true);
    sda(true);
}

static bool i2c_put(uint8_t byte) {
    for (int bit = 7; bit >= 0; bit--) {
        sda(byte >> bit & 1);
        scl(true);
        scl(false);
    }
    sda(true);
    scl(true);
    bool acknowledged = !(I2C_SET & SDA);
    scl(false);
    return acknowledged;
}

static uint8_t i2c_get(bool more) {
    uint8_t byte = 0;
    sda(true);
    for (int bit = 0; bit < 8; bit++) {
        scl(true);
        byte = (uint8_t)(byte << 1 | ((I2C_SET & SDA) ? 1 : 0));
        scl(false);
    }
    sda(!more);
    scl(true);
    scl(false);
    sda(true);
    return byte;
}

// A restart can leave a device in the middle of a byte; nine clocks let it finish.
static void i2c_free(void) {
    if (!(I2C_SET & SDA)) {
        sda(true);
        for (int i = 0; i < 9; i++) {
            scl(false);
            scl(true);
        }
        i2c_stop();
    }
}

bool board_i2c_write(uint8_t address, const uint8_t *from, size_t length) {
    i2c_free();
    i2c_start();
    bool done = i2c_put((uint8_t)(address << 1));
    for (size_t i = 0; done && i < length; i++) {
        done = i2c_put(from[i]);
    }
    i2c_stop();
    return done;
}

bool board_i2c_read(uint8_t address, uint8_t reg, uint8_t *to, size_t length) {
    i2c_free();
    i2c_start();
    bool done = i2c_put((uint8_t)(address << 1)) && i2c_put(reg);
    if (done) {
        i2c_start();
        done = i2c_put((uint8_t)(address << 1 | 1));
    }
    for (size_t i = 0; done && i < length; i++) {
        to[i] = i2c_get(i + 1 < length);
    }
    i2c_stop();
    return done;
}

void board_watchdog_start(uint32_t ms) {
    WATCHDOG(0xC00) = WATCHDOG_UNLOCK;
    WATCHDOG(0x000) = ms * (CLOCK_HZ / 1000);
    WATCHDOG(0x008) = 3; // first the NMI, then the reset
    WATCHDOG(0xC00) = 0;
}

void board_watchdog_feed(void) {
    WATCHDOG(0xC00) = WATCHDOG_UNLOCK;
    WATCHDOG(0x00C) = 1; // clears the first stage and loads the counter again
    WATCHDOG(0xC00) = 0;
}

bool board_was_restarted(void) {
    return restarted;
}

uint32_t board_attempts(void) {
    return record.attempts;
}

void board_runs_well(void) {
    record.attempts = 0;
}

const uint8_t *board_kept(size_t *length) {
    if (record.magic != RECORD_MAGIC || record.length > BOARD_KEPT_BYTES ||
        record.check != checksum(record.bytes, record.length)) {
        return NULL;
    }
    *length = record.length;
    return record.bytes;
}

void board_keep(const uint8_t *from, size_t length) {
    if (length <= BOARD_KEPT_BYTES) {
        record.magic = 0; // a restart in the middle must not find half of it
        memcpy(record.bytes, from, length);
        record.length = (uint32_t)length;
        record.check = checksum(from, length);
        record.magic = RECORD_MAGIC;
    }
}

_Noreturn void board_restart(void) {
    record.restarted = RECORD_MAGIC;
    SYSTICK_CONTROL = 0;
    for (int line = 0; line < LINES; line++) {
        UART_CONTROL(line) = 0;
    }
    __asm volatile("ldr r0, =_estack\n"
                   "mov sp, r0\n"
                   "b c_start\n");
    __builtin_unreachable();
}
