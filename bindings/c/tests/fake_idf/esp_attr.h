/* Stands in for the header of ESP-IDF of this name, with what the port uses of it. */
#pragma once
#define RTC_NOINIT_ATTR __attribute__((section(".rtc_noinit")))
