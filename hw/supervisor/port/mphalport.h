#include <stddef.h>

#define mp_hal_ticks_cpu() (0)
#define mp_hal_set_interrupt_char(c) (void)(c)
