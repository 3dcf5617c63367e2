"""YOLACT and YOLACT++ (Bolya, Zhou, Xiao and Lee, ICCV 2019 and TPAMI 2020): prototypes, coefficients, and masks made of both."""
